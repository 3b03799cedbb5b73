/* CRC with AVX2 and VPCLMULQDQ on 256 bits. */
#if defined(__x86_64__)

#include "crc_x86.h"
#include "generated/crc_tables.h"

#define FOLD \
    __attribute__((target("avx2,vpclmulqdq,sse4.2,pclmul"), always_inline)) static inline

typedef __m256i wide;
#define WIDE 32
enum {
    BY_1 = IC_FOLD_256,
    BY_2 = IC_FOLD_512,
    BY_3 = IC_FOLD_768,
    BY_4 = IC_FOLD_1024
};

#include "crc_fold.h"

FOLD wide wide_load(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }

FOLD wide wide_begin(const uint8_t *p, uint64_t state) {
    return _mm256_xor_si256(wide_load(p), _mm256_zextsi128_si256(from_words(state, 0)));
}

FOLD wide wide_powers(int crc_id, int distance) {
    return _mm256_broadcastsi128_si256(powers_for(crc_id, distance));
}

FOLD wide wide_fold(wide y, wide powers, wide next) {
    wide high = _mm256_clmulepi64_epi128(y, powers, 0x00);
    wide low = _mm256_clmulepi64_epi128(y, powers, 0x11);
    return _mm256_xor_si256(_mm256_xor_si256(high, low), next);
}

FOLD vec wide_narrow(int crc_id, wide y) {
    return fold(_mm256_castsi256_si128(y), powers_for(crc_id, IC_FOLD_128),
                _mm256_extracti128_si256(y, 1));
}

__attribute__((target("avx2,vpclmulqdq,sse4.2,pclmul"))) uint64_t
ic_crc_vpclmul256(int crc_id, uint64_t state, const uint8_t *p, size_t n) {
    return crc(crc_id, state, p, n);
}

#endif
