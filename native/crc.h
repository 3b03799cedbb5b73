/* CRC-32, CRC-32C, CRC-64/XZ and CRC-64/NVME: update, combine, and n zeros.
 *
 * All are reflected, start from all ones and end with all bits inverted.
 * Values passed and returned here are the finished ones (what the standards print,
 * 0 for no bytes at all), so calls chain: crc(a + b) == update(update(0, a), b).
 * Parameters: RFC 1952 (CRC-32, that of gzip), RFC 3720 (CRC-32C), the XZ file format (CRC-64/XZ, polynomial of
 * ECMA-182), the NVM Express NVM Command Set specification (CRC-64/NVME). */
#ifndef IMGCONV_CRC_H
#define IMGCONV_CRC_H

#include <stddef.h>
#include <stdint.h>

enum { IC_CRC32 = 0, IC_CRC32C = 1, IC_CRC64_XZ = 2, IC_CRC64_NVME = 3, IC_CRCS = 4 };

/* The checksum of what `crc` covers followed by the n bytes at p. */
uint64_t ic_crc_update(int kernel, int crc_id, uint64_t crc, const uint8_t *p, size_t n);

/* The checksum of A followed by B, from theirs and B's length; O(log length_b). */
uint64_t ic_crc_combine(int crc_id, uint64_t crc_a, uint64_t crc_b, uint64_t length_b);

/* The checksum of what `crc` covers followed by n zero bytes; O(log n). */
uint64_t ic_crc_zeros(int crc_id, uint64_t crc, uint64_t n);

#endif
