/* Zero detection with NEON; the shape of zero_x86.c. */
#if defined(__aarch64__)

#include <arm_neon.h>

#include "kernel.h"

int ic_is_zero_neon(const uint8_t *p, size_t n) {
    if (n < 16)
        return ic_is_zero_scalar(p, n);
    const uint8_t *last = p + n - 16;
    if (vmaxvq_u8(vld1q_u8(p)))
        return 0;
    for (; n >= 64; p += 64, n -= 64) {
        uint8x16_t low = vorrq_u8(vld1q_u8(p), vld1q_u8(p + 16));
        uint8x16_t high = vorrq_u8(vld1q_u8(p + 32), vld1q_u8(p + 48));
        if (vmaxvq_u8(vorrq_u8(low, high)))
            return 0;
    }
    for (; n >= 16; p += 16, n -= 16)
        if (vmaxvq_u8(vld1q_u8(p)))
            return 0;
    return vmaxvq_u8(vld1q_u8(last)) == 0;
}

#endif
