/* Reads every byte of a buffer and does nothing with it: what memory and caches give at
 * most.  One loop per width of register; the benchmark takes the fastest. */
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
#include <immintrin.h>

/* Eight loads to a turn; the empty statement keeps the compiler from dropping them.  n is
 * a multiple of 512 bytes. */
#define LOOP(name, features, type, load, constraint)                                       \
    __attribute__((target(features))) static void name(const uint8_t *p, size_t n) {       \
        for (const uint8_t *end = p + n; p < end; p += 8 * sizeof(type)) {                 \
            type v[8];                                                                     \
            for (size_t i = 0; i < 8; i++)                                                 \
                v[i] = load((const void *)(p + i * sizeof(type)));                         \
            __asm__ volatile("" ::constraint(v[0]), constraint(v[1]), constraint(v[2]),    \
                             constraint(v[3]), constraint(v[4]), constraint(v[5]),         \
                             constraint(v[6]), constraint(v[7]));                          \
        }                                                                                  \
    }

LOOP(sse2, "sse2", __m128i, _mm_loadu_si128, "x")
LOOP(avx2, "avx2", __m256i, _mm256_loadu_si256, "x")
LOOP(avx512, "avx512f", __m512i, _mm512_loadu_si512, "v")

/* Width of the registers in bits; returns 0 where the processor has none of that width. */
int load_loop(int width, const uint8_t *p, size_t n) {
    if (width == 128)
        sse2(p, n);
    else if (width == 256 && __builtin_cpu_supports("avx2"))
        avx2(p, n);
    else if (width == 512 && __builtin_cpu_supports("avx512f"))
        avx512(p, n);
    else
        return 0;
    return 1;
}

#elif defined(__aarch64__)
#include <arm_neon.h>

int load_loop(int width, const uint8_t *p, size_t n) {
    if (width != 128)
        return 0;
    for (const uint8_t *end = p + n; p < end; p += 64) {
        uint8x16_t a = vld1q_u8(p), b = vld1q_u8(p + 16), c = vld1q_u8(p + 32),
                   d = vld1q_u8(p + 48);
        __asm__ volatile("" ::"w"(a), "w"(b), "w"(c), "w"(d));
    }
    return 1;
}
#endif
