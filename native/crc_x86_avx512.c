/* CRC with AVX-512 and VPCLMULQDQ on 512 bits. */
#if defined(__x86_64__)

#include "crc_x86.h"
#include "generated/crc_tables.h"

#define TARGET "avx512f,avx512bw,avx512vl,vpclmulqdq,sse4.2,pclmul"
#define FOLD __attribute__((target(TARGET), always_inline)) static inline

typedef __m512i wide;
#define WIDE 64
enum {
    BY_1 = IC_FOLD_512,
    BY_2 = IC_FOLD_1024,
    BY_3 = IC_FOLD_1536,
    BY_4 = IC_FOLD_2048
};

#include "crc_fold.h"

FOLD wide wide_load(const uint8_t *p) { return _mm512_loadu_si512(p); }

FOLD wide wide_begin(const uint8_t *p, uint64_t state) {
    return _mm512_xor_si512(wide_load(p), _mm512_zextsi128_si512(from_words(state, 0)));
}

FOLD wide wide_powers(int crc_id, int distance) {
    return _mm512_broadcast_i32x4(powers_for(crc_id, distance));
}

FOLD wide wide_fold(wide y, wide powers, wide next) {
    wide high = _mm512_clmulepi64_epi128(y, powers, 0x00);
    wide low = _mm512_clmulepi64_epi128(y, powers, 0x11);
    return _mm512_ternarylogic_epi64(high, low, next, 0x96); /* three-way exclusive or */
}

/* The first three quarters move onto the last one, by 384, 256 and 128 bits. */
FOLD vec wide_narrow(int crc_id, wide y) {
    const wide powers = _mm512_loadu_si512(ic_crc_fold_powers[crc_id][IC_FOLD_384]);
    wide moved = wide_fold(y, powers, _mm512_setzero_si512());
    wide parts = _mm512_mask_mov_epi64(y, 0x3f, moved);
    __m256i half = _mm256_xor_si256(_mm512_castsi512_si256(parts),
                                    _mm512_extracti64x4_epi64(parts, 1));
    return add(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

__attribute__((target(TARGET))) uint64_t ic_crc_vpclmul512(int crc_id, uint64_t state,
                                                           const uint8_t *p, size_t n) {
    return crc(crc_id, state, p, n);
}

#endif
