/* How much a buffer repeats itself at a short distance: records and machine code do, text and
 * what is compressed already do not. */
#ifndef IMGCONV_REPEATS_H
#define IMGCONV_REPEATS_H

#include <stddef.h>
#include <stdint.h>

/* Returns how many of the n bytes at p equal the byte `distance` bytes (> 0) before them,
 * which for the first ones is none. */
size_t ic_repeats(const uint8_t *p, size_t n, size_t distance);

#endif
