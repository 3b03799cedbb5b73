/* The 128-bit register of crc_fold.h, with SSE4.2 and PCLMULQDQ. */
#ifndef IMGCONV_CRC_X86_H
#define IMGCONV_CRC_X86_H

#include <immintrin.h>
#include <stdint.h>

#define SSE __attribute__((target("sse4.2,pclmul"), always_inline)) static inline

typedef __m128i vec;

SSE vec load(const void *p) { return _mm_loadu_si128(p); }
SSE vec from_words(uint64_t low, uint64_t high) {
    return _mm_set_epi64x((long long)high, (long long)low);
}
SSE uint64_t low_word(vec x) { return (uint64_t)_mm_cvtsi128_si64(x); }
SSE uint64_t high_word(vec x) { return (uint64_t)_mm_extract_epi64(x, 1); }
SSE vec add(vec x, vec y) { return _mm_xor_si128(x, y); }
SSE vec multiply_low(vec x, vec y) { return _mm_clmulepi64_si128(x, y, 0x00); }
SSE vec multiply_high(vec x, vec y) { return _mm_clmulepi64_si128(x, y, 0x11); }
SSE vec pick_bytes(vec x, vec indices) { return _mm_shuffle_epi8(x, indices); }
SSE vec where_negative(vec mask, vec yes, vec no) { return _mm_blendv_epi8(no, yes, mask); }

SSE uint32_t crc32c_8(uint32_t crc, uint64_t v) { return (uint32_t)_mm_crc32_u64(crc, v); }
SSE uint32_t crc32c_4(uint32_t crc, uint32_t v) { return _mm_crc32_u32(crc, v); }
SSE uint32_t crc32c_1(uint32_t crc, uint8_t v) { return _mm_crc32_u8(crc, v); }

#endif
