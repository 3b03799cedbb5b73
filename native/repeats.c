#include "repeats.h"

/* Bytes are compared side by side and counted in counters of a byte, of which compilers make
 * vectors on every machine; after so many rows they must be added up. */
enum { LANES = 32, ROWS = 255 };

static size_t count_rows(const uint8_t *p, const uint8_t *before, size_t rows) {
    uint8_t counts[LANES] = {0};
    size_t total = 0;
    for (; rows > 0; rows--, p += LANES, before += LANES)
        for (size_t lane = 0; lane < LANES; lane++)
            counts[lane] = (uint8_t)(counts[lane] + (p[lane] == before[lane]));
    for (size_t lane = 0; lane < LANES; lane++)
        total += counts[lane];
    return total;
}

size_t ic_repeats(const uint8_t *p, size_t n, size_t distance) {
    size_t total = 0, at = distance, rows;
    for (; at < n && (rows = (n - at) / LANES) > 0; at += rows * LANES) {
        rows = rows < ROWS ? rows : ROWS;
        total += count_rows(p + at, p + at - distance, rows);
    }
    for (; at < n; at++)
        total += p[at] == p[at - distance];
    return total;
}
