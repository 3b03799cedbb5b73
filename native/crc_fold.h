/* CRC by carry-less multiplication: the algorithm, over the registers of its includer.
 *
 * A 128-bit register X, loaded as it lies in memory, is a polynomial whose first byte
 * holds the highest powers: X = H * x^64 + L with H the low word.  Moving X forward by N
 * bits modulo P is H * (x^(N+64) mod P) + L * (x^N mod P), two carry-less products.  A
 * product of reflected operands comes out one bit short, so the tables hold the powers one
 * lower: {x^(N+63), x^(N-1)}.  A wide register is several of these, moved by one distance.
 *
 * Four wide registers move side by side, which hides the latency of the multiplier, and
 * then fold into one and that into 128 bits.  The incoming state of the CRC is added to
 * the first bytes.  The last 128 bits of CRC-64 are reduced by three more products; those
 * of CRC-32C by the processor's own instruction, which also does all of a short input; and
 * those of CRC-32, which nobody computes of short inputs, by tables.
 *
 * On Zen 4 the multiplier starts one product of any width in two cycles, so that four
 * registers keep it busy, and 512 bits reach 16 bytes a cycle.  Sharing long inputs between
 * it and the CRC-32C instruction added a tenth in the caches, and took half away from
 * memory, which likes one stream.
 *
 * An includer first defines FOLD (the attributes of functions that use registers), `vec`
 * and its functions (as crc_x86.h does), and, where it has registers wider than 128 bits,
 *   wide, WIDE               their type and size in bytes
 *   BY_1, BY_2, BY_3, BY_4   the distances of so many of them
 * and afterwards the functions of `wide` that are declared here. */
#include <string.h>

#include "crc.h"
#include "generated/crc_tables.h"
#include "kernel.h"

FOLD vec powers_for(int crc_id, int distance) {
    return load(ic_crc_fold_powers[crc_id][distance]);
}

FOLD vec fold(vec x, vec powers, vec next) {
    return add(add(multiply_low(x, powers), multiply_high(x, powers)), next);
}

#ifdef WIDE
FOLD wide wide_load(const uint8_t *p);
/* The first bytes of an input, with the state of the CRC added. */
FOLD wide wide_begin(const uint8_t *p, uint64_t state);
FOLD wide wide_powers(int crc_id, int distance);
FOLD wide wide_fold(wide y, wide powers, wide next);
/* The 128 bits that y folds into. */
FOLD vec wide_narrow(int crc_id, wide y);
#else
#define WIDE 16
enum { BY_1 = IC_FOLD_128, BY_2 = IC_FOLD_256, BY_3 = IC_FOLD_384, BY_4 = IC_FOLD_512 };
typedef vec wide;
FOLD wide wide_load(const uint8_t *p) { return load(p); }
FOLD wide wide_begin(const uint8_t *p, uint64_t state) {
    return add(load(p), from_words(state, 0));
}
FOLD wide wide_powers(int crc_id, int distance) { return powers_for(crc_id, distance); }
FOLD wide wide_fold(wide y, wide powers, wide next) { return fold(y, powers, next); }
FOLD vec wide_narrow(int crc_id, wide y) { return (void)crc_id, y; }
#endif

/* Below this many bytes the processor's CRC-32C instruction alone is faster (measured on
 * x86; assumed of Arm, where it takes as long). */
enum { CRC32C_FOLD_MIN = 128 };

/* What is still to be read. */
struct span {
    const uint8_t *p;
    size_t n;
};

FOLD const uint8_t *take(struct span *input, size_t n) {
    const uint8_t *p = input->p;
    input->p += n;
    input->n -= n;
    return p;
}

/* Fold all whole wide registers of an input that has at least one. */
FOLD vec fold_wide(int crc_id, uint64_t state, struct span *input) {
    const wide by1 = wide_powers(crc_id, BY_1);
    wide y = wide_begin(take(input, WIDE), state);
    if (input->n >= 3 * WIDE) {
        const wide by2 = wide_powers(crc_id, BY_2);
        const wide by3 = wide_powers(crc_id, BY_3);
        const wide by4 = wide_powers(crc_id, BY_4);
        const uint8_t *p = take(input, 3 * WIDE);
        wide y1 = wide_load(p), y2 = wide_load(p + WIDE), y3 = wide_load(p + 2 * WIDE);
        while (input->n >= 4 * WIDE) {
            p = take(input, 4 * WIDE);
            y = wide_fold(y, by4, wide_load(p));
            y1 = wide_fold(y1, by4, wide_load(p + WIDE));
            y2 = wide_fold(y2, by4, wide_load(p + 2 * WIDE));
            y3 = wide_fold(y3, by4, wide_load(p + 3 * WIDE));
        }
        y = wide_fold(y, by3, wide_fold(y1, by2, wide_fold(y2, by1, y3)));
    }
    while (input->n >= WIDE)
        y = wide_fold(y, by1, wide_load(take(input, WIDE)));
    return wide_narrow(crc_id, y);
}

/* Fold all whole 16-byte pieces of an input that has at least one. */
FOLD vec fold_pieces(int crc_id, uint64_t state, struct span *input) {
    const vec by1 = powers_for(crc_id, IC_FOLD_128);
    vec x = input->n >= WIDE ? fold_wide(crc_id, state, input)
                             : add(load(take(input, 16)), from_words(state, 0));
    while (input->n >= 16)
        x = fold(x, by1, load(take(input, 16)));
    return x;
}

/* T * x^64 mod P for a word T, by Barrett: the quotient is the high half of T times
 * floor(x^128 / P); the remainder, the low half of the quotient times P.  Tables hold both
 * without the coefficient of x^0 (and so one power lower), which cannot reach the upper
 * half, and which in P is 1. */
FOLD uint64_t reduce_word(int crc_id, uint64_t t) {
    const vec barrett = load(ic_crc64_barrett[crc_id - IC_CRC64_XZ]);
    vec quotient = multiply_low(from_words(t, 0), barrett);
    uint64_t q = low_word(quotient);
    return q ^ high_word(multiply_high(from_words(0, q), barrett));
}

/* x * x^64 mod P. */
FOLD uint64_t reduce(int crc_id, vec x) {
    vec t = multiply_low(x, powers_for(crc_id, IC_FOLD_64));
    return high_word(t) ^ reduce_word(crc_id, low_word(t) ^ high_word(x));
}

/* The n < 16 bytes that follow x and at least 16 - n others: move the first n bytes of x
 * on, and put those bytes behind the rest of it. */
FOLD vec fold_tail(int crc_id, vec x, const uint8_t *end, size_t n) {
    static const uint8_t window[48] = {
        0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
        0x80, 0x80, 0x80, 0x80, 0,    1,    2,    3,    4,    5,    6,    7,
        8,    9,    10,   11,   12,   13,   14,   15,   0x80, 0x80, 0x80, 0x80,
        0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80};
    vec up = load(window + n); /* moves the first n bytes to the end; 0x80 is no byte */
    vec first = pick_bytes(x, up), rest = pick_bytes(x, load(window + 16 + n));
    return fold(first, powers_for(crc_id, IC_FOLD_128), where_negative(up, rest, load(end - 16)));
}

/* n <= 8 bytes as a word, the first one lowest. */
FOLD uint64_t load_word(const uint8_t *p, size_t n) {
    uint64_t word = 0;
    uint32_t first, last;
    if (n == 8) {
        memcpy(&word, p, 8);
    } else if (n >= 4) {
        memcpy(&first, p, 4);
        memcpy(&last, p + n - 4, 4); /* the two overlap */
        word = first | (uint64_t)last << (8 * n - 32);
    } else {
        for (size_t i = 0; i < n; i++)
            word |= (uint64_t)p[i] << (8 * i);
    }
    return word;
}

/* Fewer than 16 bytes, moved to the end of a 64-bit or 128-bit polynomial. */
FOLD uint64_t crc64_short(int crc_id, uint64_t state, const uint8_t *p, size_t n) {
    if (n == 0)
        return state;
    if (n > 8) {
        uint64_t low = load_word(p, 8) ^ state;
        uint64_t high = load_word(p + n - 8, 8) ^ state >> (8 * n - 64); /* overlaps low */
        return reduce(crc_id, from_words(low << (128 - 8 * n), high));
    }
    uint64_t low = load_word(p, n) ^ state;
    uint64_t beyond = n < 8 ? low >> (8 * n) : 0; /* of the state */
    return beyond ^ reduce_word(crc_id, low << (64 - 8 * n));
}

FOLD uint64_t crc64(int crc_id, uint64_t state, struct span input) {
    if (input.n < 16)
        return crc64_short(crc_id, state, input.p, input.n);
    vec x = fold_pieces(crc_id, state, &input);
    if (input.n > 0)
        x = fold_tail(crc_id, x, input.p + input.n, input.n);
    return reduce(crc_id, x);
}

FOLD uint32_t crc32c(uint32_t state, struct span input) {
    if (input.n >= CRC32C_FOLD_MIN) {
        vec x = fold_pieces(IC_CRC32C, state, &input);
        state = crc32c_8(crc32c_8(0, low_word(x)), high_word(x));
    }
    while (input.n >= 8)
        state = crc32c_8(state, load_word(take(&input, 8), 8));
    if (input.n >= 4)
        state = crc32c_4(state, (uint32_t)load_word(take(&input, 4), 4));
    while (input.n > 0)
        state = crc32c_1(state, *take(&input, 1));
    return state;
}

FOLD uint32_t crc32(uint32_t state, struct span input) {
    if (input.n >= 16) {
        vec x = fold_pieces(IC_CRC32, state, &input);
        const uint64_t words[2] = {low_word(x), high_word(x)};
        state = (uint32_t)ic_crc_scalar(IC_CRC32, 0, (const uint8_t *)words, sizeof words);
    }
    return (uint32_t)ic_crc_scalar(IC_CRC32, state, input.p, input.n);
}

FOLD uint64_t crc(int crc_id, uint64_t state, const uint8_t *p, size_t n) {
    struct span input = {p, n};
    if (crc_id == IC_CRC32)
        return crc32((uint32_t)state, input);
    return crc_id == IC_CRC32C ? crc32c((uint32_t)state, input) : crc64(crc_id, state, input);
}
