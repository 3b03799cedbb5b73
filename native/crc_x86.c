/* CRC by carry-less multiplication.
 *
 * A 128-bit register X, loaded as it lies in memory, is a polynomial whose first
 * byte holds the highest powers: X = H * x^64 + L with H the low half.  Moving X
 * forward by N bits modulo P is H * (x^(N+64) mod P) + L * (x^N mod P), two
 * carry-less products.  A product of reflected operands comes out one bit short,
 * so the tables hold the powers one lower: {x^(N+63), x^(N-1)}.
 *
 * Several registers move side by side by their total width, are then folded into
 * one, and the last 16 bytes with the tail go through the scalar loop, which also
 * does the final reduction.  The incoming CRC state is added to the first bytes. */
#if defined(__x86_64__)

#include <immintrin.h>

#include "generated/crc_tables.h"
#include "kernel.h"

#define CLMUL __attribute__((target("pclmul,sse4.1"), always_inline)) static inline
#define VCLMUL \
    __attribute__((target("avx512f,avx512bw,avx512vl,vpclmulqdq,pclmul"), always_inline)) \
    static inline

CLMUL __m128i load(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)p); }

CLMUL __m128i fold(__m128i x, __m128i powers, __m128i next) {
    __m128i high = _mm_clmulepi64_si128(x, powers, 0x00);
    __m128i low = _mm_clmulepi64_si128(x, powers, 0x11);
    return _mm_xor_si128(_mm_xor_si128(high, low), next);
}

CLMUL __m128i powers_for(int crc_id, int distance) {
    return _mm_loadu_si128((const __m128i *)ic_crc_fold_powers[crc_id][distance]);
}

/* The whole 16-byte pieces that are left, one at a time, then the rest. */
CLMUL uint64_t finish(int crc_id, __m128i x, const uint8_t *p, size_t n) {
    const __m128i by128 = powers_for(crc_id, IC_FOLD_128);
    uint8_t last[16];
    for (; n >= 16; p += 16, n -= 16)
        x = fold(x, by128, load(p));
    _mm_storeu_si128((__m128i *)last, x);
    return ic_crc_scalar(crc_id, ic_crc_scalar(crc_id, 0, last, sizeof last), p, n);
}

__attribute__((target("pclmul,sse4.1"))) uint64_t ic_crc_clmul(int crc_id, uint64_t state,
                                                               const uint8_t *p, size_t n) {
    if (n < 64)
        return ic_crc_scalar(crc_id, state, p, n);
    const __m128i by512 = powers_for(crc_id, IC_FOLD_512);
    const __m128i by128 = powers_for(crc_id, IC_FOLD_128);
    __m128i x0 = _mm_xor_si128(load(p), _mm_cvtsi64_si128((long long)state));
    __m128i x1 = load(p + 16), x2 = load(p + 32), x3 = load(p + 48);
    for (p += 64, n -= 64; n >= 64; p += 64, n -= 64) {
        x0 = fold(x0, by512, load(p));
        x1 = fold(x1, by512, load(p + 16));
        x2 = fold(x2, by512, load(p + 32));
        x3 = fold(x3, by512, load(p + 48));
    }
    x0 = fold(fold(fold(x0, by128, x1), by128, x2), by128, x3);
    return finish(crc_id, x0, p, n);
}

VCLMUL __m512i fold512(__m512i x, __m512i powers, __m512i next) {
    __m512i high = _mm512_clmulepi64_epi128(x, powers, 0x00);
    __m512i low = _mm512_clmulepi64_epi128(x, powers, 0x11);
    return _mm512_ternarylogic_epi64(high, low, next, 0x96); /* three-way xor */
}

__attribute__((target("avx512f,avx512bw,avx512vl,vpclmulqdq,pclmul"))) uint64_t
ic_crc_vclmul(int crc_id, uint64_t state, const uint8_t *p, size_t n) {
    if (n < 512)
        return ic_crc_clmul(crc_id, state, p, n);
    const __m512i by2048 = _mm512_broadcast_i32x4(powers_for(crc_id, IC_FOLD_2048));
    const __m512i by512 = _mm512_broadcast_i32x4(powers_for(crc_id, IC_FOLD_512));
    const __m128i by128 = powers_for(crc_id, IC_FOLD_128);
    __m512i first = _mm512_zextsi128_si512(_mm_cvtsi64_si128((long long)state));
    __m512i y0 = _mm512_xor_si512(_mm512_loadu_si512(p), first);
    __m512i y1 = _mm512_loadu_si512(p + 64), y2 = _mm512_loadu_si512(p + 128);
    __m512i y3 = _mm512_loadu_si512(p + 192);
    for (p += 256, n -= 256; n >= 256; p += 256, n -= 256) {
        y0 = fold512(y0, by2048, _mm512_loadu_si512(p));
        y1 = fold512(y1, by2048, _mm512_loadu_si512(p + 64));
        y2 = fold512(y2, by2048, _mm512_loadu_si512(p + 128));
        y3 = fold512(y3, by2048, _mm512_loadu_si512(p + 192));
    }
    y0 = fold512(fold512(fold512(y0, by512, y1), by512, y2), by512, y3);
    for (; n >= 64; p += 64, n -= 64)
        y0 = fold512(y0, by512, _mm512_loadu_si512(p));
    __m128i x = _mm512_castsi512_si128(y0);
    x = fold(x, by128, _mm512_extracti32x4_epi32(y0, 1));
    x = fold(x, by128, _mm512_extracti32x4_epi32(y0, 2));
    x = fold(x, by128, _mm512_extracti32x4_epi32(y0, 3));
    return finish(crc_id, x, p, n);
}

#endif
