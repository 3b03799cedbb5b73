#include "zero.h"

#include <string.h>

#include "kernel.h"

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

size_t ic_data_runs(int kernel, const uint8_t *p, size_t n, size_t granule, int64_t *starts,
                    int64_t *stops) {
    ic_is_zero_fn is_zero = ic_kernel_get(kernel)->is_zero;
    size_t runs = 0;
    int open = 0;
    for (size_t at = 0; at < n; at += granule) {
        size_t length = n - at < granule ? n - at : granule;
        if (is_zero(p + at, length)) {
            open = 0;
            continue;
        }
        if (!open)
            starts[runs++] = (int64_t)at;
        stops[runs - 1] = (int64_t)(at + length);
        open = 1;
    }
    return runs;
}
