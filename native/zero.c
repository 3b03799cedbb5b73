#include "zero.h"

#include <string.h>

#include "kernel.h"

enum { MOST = 64 * 1024 }; /* bytes of zeros that one call looks at */

int ic_is_zero_scalar(const uint8_t *p, size_t n) {
    while (n >= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        if (word)
            return 0;
        p += 8;
        n -= 8;
    }
    while (n--)
        if (*p++)
            return 0;
    return 1;
}

int ic_is_zero(int kernel, const uint8_t *p, size_t n) {
    return ic_kernel_get(kernel)->is_zero(p, n);
}

static size_t lesser(size_t a, size_t b) { return a < b ? a : b; }

/* How many bytes at p are granules of zeros.  Of a long stretch many are looked at in one
 * call, but never more than a fourth of what was zero before: where it ends they are looked
 * at again. */
static size_t zero_granules(ic_is_zero_fn is_zero, const uint8_t *p, size_t n, size_t granule) {
    size_t done = 0;
    for (size_t step = granule; done < n && is_zero(p + done, lesser(step, n - done));) {
        done += lesser(step, n - done);
        step = lesser(done / 4, MOST) / granule * granule;
        step = step < granule ? granule : step;
    }
    while (done < n && is_zero(p + done, lesser(granule, n - done)))
        done += lesser(granule, n - done);
    return done;
}

size_t ic_data_runs(int kernel, const uint8_t *p, size_t n, size_t granule, int64_t *starts,
                    int64_t *stops) {
    ic_is_zero_fn is_zero = ic_kernel_get(kernel)->is_zero;
    size_t runs = 0;
    for (size_t at = zero_granules(is_zero, p, n, granule); at < n;) {
        size_t length = lesser(granule, n - at); /* of a granule that holds data */
        starts[runs] = (int64_t)at;
        do {
            at += length;
            length = lesser(granule, n - at);
        } while (length && !is_zero(p + at, length));
        stops[runs++] = (int64_t)at;
        at += length;
        at += zero_granules(is_zero, p + at, n - at, granule);
    }
    return runs;
}
