/* Unit tests of the leaf functions, without Python: every kernel that runs here
 * against plain definitions, over all small lengths and alignments.  Built and run by
 * `make native-test`, once more under the sanitizers by `make asan`, and for Arm under
 * emulation by `make native-test-arm`; buffers end where their allocation ends, so that
 * reading one byte too far is caught by the sanitizers. */
#define _POSIX_C_SOURCE 200112L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "crc.h"
#include "kernel.h"
#include "repeats.h"
#include "zero.h"

#ifndef STRIDE
#define STRIDE 1 /* between the alignments that are tried; an emulator is slow */
#endif
enum { LENGTHS = 4096, OFFSETS = 64 };

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

/* n bytes at `offset` bytes from an alignment of 64, ending with their allocation (which
 * starts at the alignment, and is what must be freed).  What precedes them is not zero. */
static uint8_t *allocate(size_t offset, size_t n) {
    void *start = NULL;
    if (posix_memalign(&start, 64, offset + n + (offset + n == 0)) != 0)
        abort();
    memset(start, 0xff, offset);
    return start;
}

/* One byte of a CRC, a bit at a time, straight from the definition; raw registers. */
static uint64_t crc_byte(int crc_id, uint64_t state, uint8_t byte) {
    static const uint64_t polynomial[] = {UINT64_C(0xedb88320), UINT64_C(0x82f63b78),
                                          UINT64_C(0xc96c5795d7870f42),
                                          UINT64_C(0x9a6c9329ac4bc9b5)};
    state ^= byte;
    for (int i = 0; i < 8; i++)
        state = state & 1 ? state >> 1 ^ polynomial[crc_id] : state >> 1;
    return state;
}

static void test_check_values(int kernel) {
    static const uint64_t expected[] = {UINT64_C(0xcbf43926), UINT64_C(0xe3069283),
                                        UINT64_C(0x995dc9bbdf1939fa),
                                        UINT64_C(0xae8b14860a799888)};
    for (int id = 0; id < IC_CRCS; id++)
        CHECK(ic_crc_update(kernel, id, 0, (const uint8_t *)"123456789", 9) == expected[id],
              "kernel %d crc %d", kernel, id);
}

static void test_is_zero(int kernel) {
    for (size_t offset = 0; offset < OFFSETS; offset += STRIDE)
        for (size_t n = 0; n <= LENGTHS; n++) {
            uint8_t *buffer = allocate(offset, n), *p = buffer + offset;
            memset(p, 0, n);
            CHECK(ic_is_zero(kernel, p, n), "n %zu offset %zu", n, offset);
            if (n > 0) {
                p[n - 1] = 1; /* just past the end of one that is shorter */
                CHECK(ic_is_zero(kernel, p, n - 1), "n %zu offset %zu", n - 1, offset);
                CHECK(!ic_is_zero(kernel, p, n), "n %zu offset %zu", n, offset);
                p[n - 1] = 0;
                size_t at = (n * 7 + offset * 13) % n;
                p[at] = (uint8_t)(1u << (n & 7));
                CHECK(!ic_is_zero(kernel, p, n), "n %zu at %zu", n, at);
            }
            free(buffer);
        }
}

static void test_is_zero_sees_every_position(int kernel) {
    for (size_t n = 1; n <= LENGTHS; n += n < 1100 ? 1 : 97) {
        uint8_t *buffer = calloc(1, n);
        for (size_t at = 0; at < n; at++) {
            buffer[at] = 0x80;
            CHECK(!ic_is_zero(kernel, buffer, n), "n %zu at %zu", n, at);
            buffer[at] = 0;
        }
        free(buffer);
    }
}

static void test_data_runs(int kernel) {
    static const size_t granules[] = {1, 7, 512, 4096};
    int64_t starts[2049], stops[2049];
    for (size_t round = 0; round < 400; round++) {
        size_t granule = granules[round & 3], offset = round % OFFSETS;
        size_t n = (size_t)next_byte() % 32 * granule + (size_t)next_byte() % granule;
        uint8_t *buffer = allocate(offset, n), *p = buffer + offset;
        memset(p, 0, n);
        for (size_t at = 0; at < n; at += granule)
            if (next_byte() & 1)
                p[at + next_byte() % (n - at < granule ? n - at : granule)] = 1;
        size_t runs = ic_data_runs(kernel, p, n, granule, starts, stops), run = 0;
        CHECK(runs <= ((n + granule - 1) / granule + 1) / 2, "runs %zu", runs);
        for (size_t at = 0; at < n; at += granule) {
            size_t length = n - at < granule ? n - at : granule;
            while (run < runs && stops[run] <= (int64_t)at)
                run++;
            int inside = run < runs && starts[run] <= (int64_t)at;
            CHECK(inside == !ic_is_zero(0, p + at, length), "granule at %zu", at);
        }
        for (run = 1; run < runs; run++)
            CHECK(stops[run - 1] < starts[run], "runs %zu touch", run);
        free(buffer);
    }
}

/* All lengths about those at which counters of a byte are added up, too. */
static void test_repeats(void) {
    static const size_t lengths[] = {0, 1, 31, 32, 33, 100, 8159, 8160, 8161, 8192, 20000};
    static const size_t distances[] = {1, 4, 7, 32, 33, 5000};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        for (size_t j = 0; j < sizeof distances / sizeof distances[0]; j++)
            for (size_t extra = 0; extra < 3; extra++) {
                size_t distance = distances[j], n = lengths[i] + extra * distance, wanted = 0;
                uint8_t *p = allocate(extra, n), *content = p + extra;
                for (size_t at = 0; at < n; at++) {
                    content[at] = lengths[i] % 2 ? next_byte() % 3 : 5; /* or all alike */
                    wanted += at >= distance && content[at] == content[at - distance];
                }
                CHECK(ic_repeats(content, n, distance) == wanted, "n %zu distance %zu", n,
                      distance);
                free(p);
            }
}

/* The same bytes at every offset, so that one pass bit by bit serves all of them. */
static void test_crc(int kernel, int id) {
    static uint8_t content[LENGTHS];
    static uint64_t expected[LENGTHS + 1];
    uint64_t ones = id < IC_CRC64_XZ ? 0xffffffffu : ~UINT64_C(0), state = ones;
    for (size_t n = 0; n <= LENGTHS; n++) {
        expected[n] = state ^ ones;
        if (n < LENGTHS)
            state = crc_byte(id, state, content[n] = next_byte());
    }
    for (size_t offset = 0; offset < OFFSETS; offset += STRIDE)
        for (size_t n = 0; n <= LENGTHS; n++) {
            uint8_t *buffer = allocate(offset, n), *p = buffer + offset;
            memcpy(p, content, n);
            CHECK(ic_crc_update(kernel, id, 0, p, n) == expected[n], "crc %d n %zu offset %zu",
                  id, n, offset);
            if (n % OFFSETS == offset) {
                size_t cut = n * 5 / 7;
                uint64_t b = ic_crc_update(kernel, id, 0, p + cut, n - cut);
                CHECK(ic_crc_update(kernel, id, expected[cut], p + cut, n - cut) == expected[n],
                      "crc %d n %zu cut %zu", id, n, cut);
                CHECK(ic_crc_combine(id, expected[cut], b, n - cut) == expected[n],
                      "crc %d n %zu cut %zu", id, n, cut);
            }
            free(buffer);
        }
}

static void test_crc_zeros(void) {
    uint8_t *zeros = calloc(1, 5000);
    for (int id = 0; id < IC_CRCS; id++)
        for (uint64_t n = 0; n <= 5000; n += n < 300 ? 1 : 313) {
            uint64_t before = ic_crc_update(0, id, 0, (const uint8_t *)"imgconv", 7);
            CHECK(ic_crc_zeros(id, before, n) == ic_crc_update(0, id, before, zeros, n),
                  "crc %d n %llu", id, (unsigned long long)n);
        }
    free(zeros);
}

/* The best kernel of machines that are not at hand, by their features. */
static void test_choice(void) {
    enum { CLMUL = IC_CPU_SSE42 | IC_CPU_PCLMUL, AVX2 = CLMUL | IC_CPU_AVX2 };
    static const struct {
        unsigned features;
        const char *best;
    } machines[] = {
#if defined(__x86_64__)
        {0, "scalar"},
        {IC_CPU_SSE42, "scalar"},
        {IC_CPU_PCLMUL, "scalar"},
        {CLMUL, "clmul"},
        {CLMUL | IC_CPU_VPCLMUL, "clmul"}, /* wide registers are not saved */
        {IC_CPU_AVX2 | IC_CPU_AVX512 | IC_CPU_VPCLMUL, "scalar"}, /* PCLMULQDQ is masked */
        {AVX2, "avx2"},
        {AVX2 | IC_CPU_VPCLMUL, "avx2-vpclmul"},
        {CLMUL | IC_CPU_AVX512, "clmul"},
        {AVX2 | IC_CPU_AVX512, "avx512"},
        {AVX2 | IC_CPU_AVX512 | IC_CPU_VPCLMUL, "avx512-vpclmul"},
#elif defined(__aarch64__)
        {0, "neon"},
        {IC_CPU_ARM_CRC, "neon"},
        {IC_CPU_ARM_PMULL, "neon"},
        {IC_CPU_ARM_CRC | IC_CPU_ARM_PMULL, "neon-pmull"},
#else
        {0, "scalar"},
#endif
    };
    for (size_t i = 0; i < sizeof machines / sizeof machines[0]; i++) {
        int best = -1;
        for (int id = 0; id < ic_kernel_count(); id++)
            if (ic_kernel_status_on(id, machines[i].features) == IC_KERNEL_USABLE)
                best = id;
        CHECK(best >= 0 && strcmp(ic_kernel_name(best), machines[i].best) == 0,
              "features %#x choose %d", machines[i].features, best);
    }
    CHECK(ic_kernel_status(-1) == IC_KERNEL_NOT_BUILT, "no such kernel");
    CHECK(ic_kernel_status(ic_kernel_count()) == IC_KERNEL_NOT_BUILT, "no such kernel");
}

/* Arguments are the kernels that must be usable, and no others may be: a run under an
 * emulated processor says so, lest it test nothing. */
static void test_usable(int count, char **names) {
    for (int kernel = 0; count > 0 && kernel < ic_kernel_count(); kernel++) {
        int wanted = 0;
        for (int i = 0; i < count; i++)
            wanted |= strcmp(names[i], ic_kernel_name(kernel)) == 0;
        CHECK(wanted == (ic_kernel_status(kernel) == IC_KERNEL_USABLE), "kernel %s",
              ic_kernel_name(kernel));
    }
}

int main(int count, char **arguments) {
    for (int kernel = 0; kernel < ic_kernel_count(); kernel++) {
        if (ic_kernel_status(kernel) != IC_KERNEL_USABLE) {
            printf("%-14s not usable here\n", ic_kernel_name(kernel));
            continue;
        }
        unsigned long before = failures;
        test_check_values(kernel);
        test_is_zero(kernel);
        test_is_zero_sees_every_position(kernel);
        test_data_runs(kernel);
        for (int id = 0; id < IC_CRCS; id++)
            test_crc(kernel, id);
        printf("%-14s %s\n", ic_kernel_name(kernel), failures == before ? "ok" : "FAILED");
    }
    test_repeats();
    test_crc_zeros();
    test_choice();
    test_usable(count - 1, arguments + 1);
    return failures != 0;
}
