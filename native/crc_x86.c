/* CRC with SSE4.2 and PCLMULQDQ. */
#if defined(__x86_64__)

#include "crc_x86.h"

#define FOLD SSE

#include "crc_fold.h"

__attribute__((target("sse4.2,pclmul"))) uint64_t ic_crc_clmul(int crc_id, uint64_t state,
                                                               const uint8_t *p, size_t n) {
    return crc(crc_id, state, p, n);
}

#endif
