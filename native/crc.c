#include "crc.h"

#include <string.h>

#include "generated/crc_tables.h"
#include "kernel.h"

static uint64_t ones(int crc_id) { return crc_id < IC_CRC64_XZ ? 0xffffffffu : ~UINT64_C(0); }

/* Slicing by 8: eight bytes per step, one table lookup each. */
uint64_t ic_crc_scalar(int crc_id, uint64_t state, const uint8_t *p, size_t n) {
    const uint64_t(*table)[256] = ic_crc_slices[crc_id];
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t next = 0;
        for (int i = 0; i < 8; i++)
            next ^= table[7 - i][(uint8_t)(state >> (8 * i)) ^ p[i]];
        state = next;
    }
    while (n--)
        state = table[0][(uint8_t)state ^ *p++] ^ (state >> 8);
    return state;
}

uint64_t ic_crc_update(int kernel, int crc_id, uint64_t crc, const uint8_t *p, size_t n) {
    uint64_t invert = ones(crc_id);
    return ic_kernel_get(kernel)->crc(crc_id, crc ^ invert, p, n) ^ invert;
}

/* a * b mod P, both reflected: bit (width - 1) is the coefficient of x^0. */
static uint64_t multiply(int crc_id, uint64_t a, uint64_t b) {
    uint64_t bit = crc_id < IC_CRC64_XZ ? UINT64_C(1) << 31 : UINT64_C(1) << 63;
    uint64_t product = 0;
    for (; a != 0; a &= bit - 1, bit >>= 1) {
        if (a & bit)
            product ^= b;
        b = b & 1 ? (b >> 1) ^ ic_crc_polynomial[crc_id] : b >> 1;
    }
    return product;
}

/* state * x^(8 * n) mod P: what n zero bytes do to a raw register. */
static uint64_t shift(int crc_id, uint64_t state, uint64_t n) {
    for (int i = 0; n != 0; n >>= 1, i++)
        if (n & 1)
            state = multiply(crc_id, ic_crc_byte_powers[crc_id][i], state);
    return state;
}

uint64_t ic_crc_combine(int crc_id, uint64_t crc_a, uint64_t crc_b, uint64_t length_b) {
    return shift(crc_id, crc_a, length_b) ^ crc_b;
}

uint64_t ic_crc_zeros(int crc_id, uint64_t crc, uint64_t n) {
    uint64_t invert = ones(crc_id);
    return shift(crc_id, crc ^ invert, n) ^ invert;
}
