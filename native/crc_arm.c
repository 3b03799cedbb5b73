/* CRC with NEON, PMULL and the CRC32 extension of Armv8. */
#if defined(__aarch64__)

#include <arm_acle.h>
#include <arm_neon.h>
#include <stdint.h>

#define TARGET "+crypto+crc"
#define FOLD __attribute__((target(TARGET), always_inline)) static inline

typedef uint8x16_t vec;

FOLD vec load(const void *p) { return vld1q_u8(p); }
FOLD vec from_words(uint64_t low, uint64_t high) {
    return vreinterpretq_u8_u64(vcombine_u64(vcreate_u64(low), vcreate_u64(high)));
}
FOLD uint64_t low_word(vec x) { return vgetq_lane_u64(vreinterpretq_u64_u8(x), 0); }
FOLD uint64_t high_word(vec x) { return vgetq_lane_u64(vreinterpretq_u64_u8(x), 1); }
FOLD vec add(vec x, vec y) { return veorq_u8(x, y); }
FOLD vec multiply_low(vec x, vec y) {
    return vreinterpretq_u8_p128(vmull_p64((poly64_t)low_word(x), (poly64_t)low_word(y)));
}
FOLD vec multiply_high(vec x, vec y) {
    return vreinterpretq_u8_p128(
        vmull_high_p64(vreinterpretq_p64_u8(x), vreinterpretq_p64_u8(y)));
}
FOLD vec pick_bytes(vec x, vec indices) { return vqtbl1q_u8(x, indices); }
FOLD vec where_negative(vec mask, vec yes, vec no) {
    return vbslq_u8(vcltzq_s8(vreinterpretq_s8_u8(mask)), yes, no);
}

FOLD uint32_t crc32c_8(uint32_t crc, uint64_t v) { return __crc32cd(crc, v); }
FOLD uint32_t crc32c_4(uint32_t crc, uint32_t v) { return __crc32cw(crc, v); }
FOLD uint32_t crc32c_1(uint32_t crc, uint8_t v) { return __crc32cb(crc, v); }

#include "crc_fold.h"

__attribute__((target(TARGET))) uint64_t ic_crc_pmull(int crc_id, uint64_t state,
                                                      const uint8_t *p, size_t n) {
    return crc(crc_id, state, p, n);
}

#endif
