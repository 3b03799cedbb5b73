/* Zero detection with AVX2 and AVX-512.
 *
 * Data is recognised by the first vector, so that a data granule costs one cache
 * line; zeros are consumed four vectors to a branch, which keeps the loop bound by
 * the loads. */
#if defined(__x86_64__)

#include <immintrin.h>

#include "kernel.h"

__attribute__((target("avx2"))) int ic_is_zero_avx2(const uint8_t *p, size_t n) {
    if (n < 32)
        return ic_is_zero_scalar(p, n);
    const uint8_t *last = p + n - 32;
    __m256i a = _mm256_loadu_si256((const __m256i *)p);
    if (!_mm256_testz_si256(a, a))
        return 0;
    for (; n >= 128; p += 128, n -= 128) {
        __m256i v0 = _mm256_loadu_si256((const __m256i *)p);
        __m256i v1 = _mm256_loadu_si256((const __m256i *)(p + 32));
        __m256i v2 = _mm256_loadu_si256((const __m256i *)(p + 64));
        __m256i v3 = _mm256_loadu_si256((const __m256i *)(p + 96));
        __m256i any = _mm256_or_si256(_mm256_or_si256(v0, v1), _mm256_or_si256(v2, v3));
        if (!_mm256_testz_si256(any, any))
            return 0;
    }
    for (; n >= 32; p += 32, n -= 32) {
        a = _mm256_loadu_si256((const __m256i *)p);
        if (!_mm256_testz_si256(a, a))
            return 0;
    }
    /* The tail is covered by one last vector that overlaps what was seen. */
    a = _mm256_loadu_si256((const __m256i *)last);
    return _mm256_testz_si256(a, a);
}

__attribute__((target("avx512f,avx512bw"))) int ic_is_zero_avx512(const uint8_t *p, size_t n) {
    if (n < 64)
        return ic_is_zero_scalar(p, n);
    const uint8_t *last = p + n - 64;
    __m512i a = _mm512_loadu_si512(p);
    if (_mm512_test_epi64_mask(a, a))
        return 0;
    for (; n >= 256; p += 256, n -= 256) {
        __m512i v0 = _mm512_loadu_si512(p);
        __m512i v1 = _mm512_loadu_si512(p + 64);
        __m512i v2 = _mm512_loadu_si512(p + 128);
        __m512i v3 = _mm512_loadu_si512(p + 192);
        __m512i any = _mm512_or_si512(_mm512_or_si512(v0, v1), _mm512_or_si512(v2, v3));
        if (_mm512_test_epi64_mask(any, any))
            return 0;
    }
    for (; n >= 64; p += 64, n -= 64) {
        a = _mm512_loadu_si512(p);
        if (_mm512_test_epi64_mask(a, a))
            return 0;
    }
    a = _mm512_loadu_si512(last);
    return _mm512_test_epi64_mask(a, a) == 0;
}

#endif
