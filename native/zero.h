/* Zero detection over a buffer at a granularity. */
#ifndef IMGCONV_ZERO_H
#define IMGCONV_ZERO_H

#include <stddef.h>
#include <stdint.h>

/* Returns nonzero when all n bytes at p are zero. */
int ic_is_zero(int kernel, const uint8_t *p, size_t n);

/* Finds the maximal runs of granules that hold a nonzero byte.
 *
 * The n bytes at p are cut into granules of `granule` bytes (> 0), the last one
 * possibly shorter.  Run i covers bytes [starts[i], stops[i]) of the buffer; runs
 * ascend and never touch.  Both arrays must have room for
 * (number of granules + 1) / 2 entries, which no input exceeds.  Returns the
 * number of runs. */
size_t ic_data_runs(int kernel, const uint8_t *p, size_t n, size_t granule, int64_t *starts,
                    int64_t *stops);

#endif
