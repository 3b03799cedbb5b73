/* Kernels: named sets of leaf functions, one for each family of machines.
 *
 * Kernel 0 is the scalar reference.  Every other kernel returns bit-identical
 * results; tests hold that.  A kernel that was not built for this architecture,
 * or that this processor or operating system cannot run, is known by name but
 * refuses to be used: a caller that asked for it must hear so.
 *
 * All functions are pure: pointer and length in, value out.  No allocation, no
 * errno, no mutable globals, any alignment.
 */
#ifndef IMGCONV_KERNEL_H
#define IMGCONV_KERNEL_H

#include <stddef.h>
#include <stdint.h>

enum { IC_KERNEL_USABLE = 0, IC_KERNEL_NOT_BUILT = 1, IC_KERNEL_CPU_LACKS = 2 };

/* Returns nonzero when all n bytes at p are zero (true for n == 0). */
typedef int (*ic_is_zero_fn)(const uint8_t *p, size_t n);

/* Advances the raw register of one of the three CRCs (see crc.h) over n bytes. */
typedef uint64_t (*ic_crc_fn)(int crc_id, uint64_t state, const uint8_t *p, size_t n);

struct ic_kernel {
    const char *name;
    unsigned needs;        /* features of cpu.h, all of them */
    ic_is_zero_fn is_zero; /* NULL when not built */
    ic_crc_fn crc;
};

/* Number of kernels this version knows, built or not. */
int ic_kernel_count(void);
/* Name of a kernel, NULL when id is out of range. */
const char *ic_kernel_name(int id);
/* One of the IC_KERNEL_ codes, for this machine. */
int ic_kernel_status(int id);
/* The same for a machine with the given features (of cpu.h). */
int ic_kernel_status_on(int id, unsigned features);
/* The set itself; only for ids whose status is IC_KERNEL_USABLE. */
const struct ic_kernel *ic_kernel_get(int id);

/* Implementations, each in the file of its instruction set. */
int ic_is_zero_scalar(const uint8_t *p, size_t n);
uint64_t ic_crc_scalar(int crc_id, uint64_t state, const uint8_t *p, size_t n);
#if defined(__x86_64__)
int ic_is_zero_avx2(const uint8_t *p, size_t n);
int ic_is_zero_avx512(const uint8_t *p, size_t n);
uint64_t ic_crc_clmul(int crc_id, uint64_t state, const uint8_t *p, size_t n);
uint64_t ic_crc_vpclmul256(int crc_id, uint64_t state, const uint8_t *p, size_t n);
uint64_t ic_crc_vpclmul512(int crc_id, uint64_t state, const uint8_t *p, size_t n);
#elif defined(__aarch64__)
int ic_is_zero_neon(const uint8_t *p, size_t n);
uint64_t ic_crc_pmull(int crc_id, uint64_t state, const uint8_t *p, size_t n);
#endif

#endif
