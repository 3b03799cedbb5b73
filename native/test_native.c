/* Unit tests of the leaf functions, without Python: every kernel that runs here
 * against plain definitions, over all small lengths and alignments.  Built and run by
 * `make native-test`, and once more under the sanitizers by `make asan`; buffers are
 * malloc'ed to size so that reading one byte too far is caught there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crc.h"
#include "kernel.h"
#include "zero.h"

static unsigned long failures;

#define CHECK(what, ...)                                                                \
    do {                                                                                \
        if (!(what)) {                                                                  \
            failures++;                                                                 \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #what);                  \
            fprintf(stderr, __VA_ARGS__);                                               \
            fputc('\n', stderr);                                                        \
        }                                                                               \
    } while (0)

static uint32_t seed = 1;
static uint8_t next_byte(void) {
    seed = seed * 1664525u + 1013904223u;
    return (uint8_t)(seed >> 24);
}

/* One bit at a time, straight from the definition. */
static uint64_t crc_by_bits(int crc_id, const uint8_t *p, size_t n) {
    static const uint64_t polynomial[] = {UINT64_C(0x82f63b78), UINT64_C(0xc96c5795d7870f42),
                                          UINT64_C(0x9a6c9329ac4bc9b5)};
    uint64_t ones = crc_id == IC_CRC32C ? 0xffffffffu : ~UINT64_C(0), state = ones;
    while (n--) {
        state ^= *p++;
        for (int i = 0; i < 8; i++)
            state = state & 1 ? state >> 1 ^ polynomial[crc_id] : state >> 1;
    }
    return state ^ ones;
}

static void test_check_values(int kernel) {
    static const uint64_t expected[] = {UINT64_C(0xe3069283), UINT64_C(0x995dc9bbdf1939fa),
                                        UINT64_C(0xae8b14860a799888)};
    for (int id = 0; id < 3; id++)
        CHECK(ic_crc_update(kernel, id, 0, (const uint8_t *)"123456789", 9) == expected[id],
              "kernel %d crc %d", kernel, id);
}

static void test_is_zero(int kernel) {
    for (size_t offset = 0; offset < 64; offset++)
        for (size_t n = 0; n <= 600; n++) {
            uint8_t *buffer = calloc(1, offset + n + 1);
            CHECK(ic_is_zero(kernel, buffer + offset, n), "n %zu offset %zu", n, offset);
            buffer[offset + n] = 1; /* just past the end: must not matter */
            CHECK(ic_is_zero(kernel, buffer + offset, n), "n %zu offset %zu", n, offset);
            if (n > 0) {
                size_t at = (n * 7 + offset * 13) % n;
                buffer[offset + at] = (uint8_t)(1u << (n & 7));
                CHECK(!ic_is_zero(kernel, buffer + offset, n), "n %zu at %zu", n, at);
            }
            free(buffer);
        }
    for (size_t n = 1; n <= 4096; n += n < 1100 ? 1 : 97) /* every single position */
        for (size_t at = 0; at < n; at += n < 200 ? 1 : 31) {
            uint8_t *buffer = calloc(1, n);
            buffer[at] = 0x80;
            CHECK(!ic_is_zero(kernel, buffer, n), "n %zu at %zu", n, at);
            free(buffer);
        }
}

static void test_data_runs(int kernel) {
    static const size_t granules[] = {1, 7, 512, 4096};
    int64_t starts[2049], stops[2049];
    for (int round = 0; round < 400; round++) {
        size_t granule = granules[round & 3];
        size_t n = (size_t)next_byte() % 32 * granule + (size_t)next_byte() % granule;
        uint8_t *buffer = calloc(1, n + 1);
        for (size_t at = 0; at < n; at += granule)
            if (next_byte() & 1)
                buffer[at + next_byte() % (n - at < granule ? n - at : granule)] = 1;
        size_t runs = ic_data_runs(kernel, buffer, n, granule, starts, stops), run = 0;
        CHECK(runs <= ((n + granule - 1) / granule + 1) / 2, "runs %zu", runs);
        for (size_t at = 0; at < n; at += granule) {
            size_t length = n - at < granule ? n - at : granule;
            while (run < runs && stops[run] <= (int64_t)at)
                run++;
            int inside = run < runs && starts[run] <= (int64_t)at;
            CHECK(inside == !ic_is_zero(0, buffer + at, length), "granule at %zu", at);
        }
        for (run = 1; run < runs; run++)
            CHECK(stops[run - 1] < starts[run], "runs %zu touch", run);
        free(buffer);
    }
}

static void test_crc(int kernel) {
    for (int id = 0; id < 3; id++)
        for (size_t n = 0; n <= 2200; n += n < 1200 ? 1 : 61)
            for (size_t offset = 0; offset < 64; offset += 21) {
                uint8_t *buffer = malloc(offset + n + 1);
                for (size_t i = 0; i < n; i++)
                    buffer[offset + i] = next_byte();
                const uint8_t *p = buffer + offset;
                uint64_t whole = crc_by_bits(id, p, n);
                size_t cut = n ? n * 5 / 7 : 0;
                uint64_t a = ic_crc_update(kernel, id, 0, p, cut);
                uint64_t b = ic_crc_update(kernel, id, 0, p + cut, n - cut);
                CHECK(ic_crc_update(kernel, id, 0, p, n) == whole, "crc %d n %zu", id, n);
                CHECK(ic_crc_update(kernel, id, a, p + cut, n - cut) == whole, "n %zu", n);
                CHECK(ic_crc_combine(id, a, b, n - cut) == whole, "crc %d n %zu", id, n);
                free(buffer);
            }
}

static void test_crc_zeros(void) {
    uint8_t *zeros = calloc(1, 5000);
    for (int id = 0; id < 3; id++)
        for (uint64_t n = 0; n <= 5000; n += n < 300 ? 1 : 313) {
            uint64_t before = ic_crc_update(0, id, 0, (const uint8_t *)"imgconv", 7);
            CHECK(ic_crc_zeros(id, before, n) == ic_crc_update(0, id, before, zeros, n),
                  "crc %d n %llu", id, (unsigned long long)n);
        }
    free(zeros);
}

int main(void) {
    for (int kernel = 0; kernel < ic_kernel_count(); kernel++) {
        if (ic_kernel_status(kernel) != IC_KERNEL_USABLE) {
            printf("%-8s not usable here\n", ic_kernel_name(kernel));
            continue;
        }
        unsigned long before = failures;
        test_check_values(kernel);
        test_is_zero(kernel);
        test_data_runs(kernel);
        test_crc(kernel);
        printf("%-8s %s\n", ic_kernel_name(kernel), failures == before ? "ok" : "FAILED");
    }
    test_crc_zeros();
    return failures != 0;
}
