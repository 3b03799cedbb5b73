/* Tests of io.c, target.c and ahead.c on real files: what is found is what a plain read finds,
 * and what is written is what it finds then. */
#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ahead.h"
#include "io.h"
#include "kernel.h"
#include "target.h"

enum { MIB = 1 << 20, SIZE = 24 * MIB, GRANULE = 4096, RUNS = SIZE / GRANULE };

static uint8_t plain[SIZE], buffer[SIZE], seen[SIZE];
static int64_t starts[RUNS], stops[RUNS], run_starts[RUNS], run_stops[RUNS], wheres[RUNS];

static uint64_t state = 1;
static uint64_t pick(uint64_t below) {
    state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (state >> 33) % below;
}

/* A file without a name that holds `length` bytes of holes, written zeros and data. */
static int make_file(int64_t length) {
    char name[] = "/tmp/imgconv-test-XXXXXX";
    int fd = mkstemp(name);
    assert(fd >= 0 && unlink(name) == 0 && ftruncate(fd, length) == 0);
    memset(plain, 0, sizeof plain);
    for (int i = 0; i < 40; i++) {
        int64_t at = (int64_t)pick((uint64_t)length);
        size_t n = 1 + pick(i % 4 ? 3 * GRANULE : 2 * MIB);
        if ((int64_t)n > length - at)
            n = (size_t)(length - at);
        memset(plain + at, i % 3 ? 1 + i : 0, n);
        assert(pwrite(fd, plain + at, n, at) == (ssize_t)n);
    }
    return fd;
}

static void put_runs(int64_t n, const uint8_t *from) {
    for (int64_t i = 0; i < n; i++) {
        assert(run_starts[i] % GRANULE == 0 && run_starts[i] < run_stops[i]);
        assert(i == 0 || run_stops[i - 1] <= run_starts[i]);
        memcpy(seen + run_starts[i], from + wheres[i], (size_t)(run_stops[i] - run_starts[i]));
    }
}

static const int64_t nowhere = 0, everywhere = INT64_MAX;
static const struct ic_map itself = {1, &nowhere, &everywhere, &nowhere};

static void test_read_runs(int kernel, int fd, int64_t length, int64_t size) {
    struct ic_reach walk = {0, 0}, reach = {0, 0};
    while (walk.at < length) {
        assert(ic_file_extents(fd, length, 4 * MIB, 3, starts, stops, &walk) == 0);
        for (int64_t i = 0; i < walk.count; i++) {
            stops[i] = (stops[i] + 511) / 512 * 512;
            assert(starts[i] % GRANULE == 0 && stops[i] <= size);
        }
        assert(ic_read_runs(kernel, fd, length, &itself, GRANULE, (size_t)walk.count, starts,
                            stops, buffer, run_starts, run_stops, wheres, &reach) == 0);
        put_runs(reach.count, buffer);
    }
}

/* A disk of which pieces are in the file, in any order, and between which there is nothing. */
static void test_read_pieces(int kernel, int fd, int64_t length) {
    enum { PIECES = 300 };
    static uint8_t disk[SIZE];
    int64_t from[PIECES], to[PIECES], in_file[PIECES], at = 0;
    struct ic_map map = {0, from, to, in_file};
    memset(disk, 0, sizeof disk);
    while (map.count < PIECES) {
        at += pick(3) ? 0 : (int64_t)pick(100000);
        int64_t n = 1 + (int64_t)pick(pick(20) ? 3 * GRANULE : MIB), where = (int64_t)pick(SIZE);
        if (at + n > SIZE || where + n > SIZE)
            break;
        from[map.count] = at, to[map.count] = at + n, in_file[map.count++] = where;
        memcpy(disk + at, plain + where, (size_t)n);
        at += n;
    }
    size_t ranges = 0;
    for (int64_t start = 0; start < SIZE; start += GRANULE * (int64_t)pick(300)) {
        int64_t stop = start + GRANULE * (1 + (int64_t)pick(600));
        starts[ranges] = start, stops[ranges++] = stop < SIZE ? stop : SIZE;
        start = stops[ranges - 1];
    }
    struct ic_reach reach = {0, 0};
    memset(seen, 0, sizeof seen);
    assert(ic_read_runs(kernel, fd, length, &map, GRANULE, ranges, starts, stops, buffer,
                        run_starts, run_stops, wheres, &reach) == 0);
    put_runs(reach.count, buffer);
    for (size_t i = 0; i < ranges; i++)
        assert(!memcmp(seen + starts[i], disk + starts[i], (size_t)(stops[i] - starts[i])));
}

static void test_ahead(int kernel, int fd, int64_t length, int64_t size, int threads,
                       size_t room) {
    uint8_t *arena = malloc(room ? room : 1);
    struct ic_ahead *ahead =
        ic_ahead_begin(kernel, fd, length, size, (int)pick(2), threads, arena, room);
    assert(arena && ahead);
    usleep((useconds_t)pick(3000));
    int64_t reach = ic_ahead_end(ahead);
    size_t count;
    const struct ic_run *runs = ic_ahead_runs(ahead, &count);
    assert(reach >= 0 && reach <= size && count <= RUNS);
    for (size_t i = 0; i < count; i++) {
        assert(runs[i].stop <= reach);
        run_starts[i] = runs[i].start, run_stops[i] = runs[i].stop, wheres[i] = runs[i].where;
    }
    memset(seen, 0, sizeof seen);
    put_runs((int64_t)count, arena);
    assert(memcmp(seen, plain, (size_t)(reach < length ? reach : length)) == 0);
    ic_ahead_free(ahead);
    free(arena);
}

static void test_errors(int kernel, int fd, int64_t length) {
    struct ic_reach reach = {0, 0};
    int64_t start = 0, stop = length / GRANULE * GRANULE + 2 * GRANULE;
    assert(ic_read_runs(kernel, fd, stop, &itself, GRANULE, 1, &start, &stop, buffer,
                        run_starts, run_stops, wheres, &reach) == IC_END_OF_FILE);
    assert(reach.at == length);
    assert(ic_read_runs(kernel, -1, 1, &itself, GRANULE, 1, &start, &stop, buffer, run_starts,
                        run_stops, wheres, &reach) == EBADF);
    assert(reach.at == 0);
    reach.at = 0;
    assert(ic_file_extents(-1, length, 1, 1, starts, stops, &reach) == EBADF);
    int64_t at = 7, size = 1;
    uint64_t address = (uint64_t)(uintptr_t)buffer;
    assert(ic_write_pieces(-1, 1, &at, &size, &address, &reach) == EBADF && reach.at == 7);
}

enum { PIECES = 200 };
static int64_t ats[PIECES], sizes[PIECES];
static uint64_t addresses[PIECES];

/* Makes up pieces, every other one behind a gap, and the file they make; returns its length. */
static int64_t make_pieces(uint64_t longest) {
    int64_t at = 0;
    memset(plain, 0, sizeof plain);
    for (int i = 0; i < PIECES; i++) {
        at += pick(3) ? 0 : (int64_t)pick(5000);
        ats[i] = at, sizes[i] = 1 + (int64_t)pick(i % 8 ? 3000 : longest);
        addresses[i] = (uint64_t)(uintptr_t)(buffer + pick((uint64_t)(SIZE - sizes[i])));
        memcpy(plain + at, (void *)(uintptr_t)addresses[i], (size_t)sizes[i]);
        at += sizes[i];
    }
    return at;
}

static void check_file(int fd, int64_t length) {
    assert(ftruncate(fd, length) == 0);
    assert(pread(fd, seen, SIZE, 0) == length && memcmp(seen, plain, (size_t)length) == 0);
    close(fd);
}

static void test_write_pieces(void) {
    int fd = make_file(1); /* which makes up a file of its own */
    int64_t length = make_pieces(3000);
    struct ic_reach reach;
    assert(ic_write_pieces(fd, PIECES, ats, sizes, addresses, &reach) == 0);
    check_file(fd, length);
}

static int can_hand_in(void) {
    int fd = (int)syscall(SYS_userfaultfd, 1 /* for faults of programs, not of the kernel */);
    return fd >= 0 && close(fd) == 0;
}

static int memory_file(void) { return memfd_create("imgconv-test", MFD_ALLOW_SEALING); }

/* One thread alone: pages that are there, pages that cannot be, a disk instead of tmpfs. */
static void test_hand_in(void) {
    int64_t length = make_pieces(600000), handed = -1;
    struct ic_reach reach;
    int fd = memory_file();
    struct ic_target *target = ic_target_new(fd);
    assert(ic_target_hand_in(target, PIECES, ats, sizes, addresses, &reach, &handed) == 0);
    assert(can_hand_in() ? handed > MIB && handed % GRANULE == 0 : handed == 0);
    int64_t again = -1;
    assert(ic_target_hand_in(target, PIECES, ats, sizes, addresses, &reach, &again) == 0);
    assert(again == 0);
    ic_target_free(target);
    check_file(fd, length);

    fd = memory_file();
    target = ic_target_new(fd);
    assert(pwrite(fd, "there", 5, ats[8] + sizes[8] / 2) == 5);
    assert(ic_target_hand_in(target, PIECES, ats, sizes, addresses, &reach, &again) == 0);
    assert(sizes[8] < MIB / 8 || !can_hand_in() || again < handed);
    ic_target_free(target);
    check_file(fd, length);

    fd = memory_file();
    target = ic_target_new(fd);
    assert(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
    assert(ic_target_hand_in(target, PIECES, ats, sizes, addresses, &reach, &again) == EPERM);
    assert(again == 0 && reach.at >= ats[0] && reach.at <= ats[1]);
    ic_target_free(target);
    close(fd);

    fd = make_file(1);
    length = make_pieces(600000);
    target = ic_target_new(fd);
    assert(ic_target_hand_in(target, PIECES, ats, sizes, addresses, &reach, &again) == 0);
    ic_target_free(target);
    check_file(fd, length);
}

struct writer {
    struct ic_target *target;
    size_t first;
};

static void *write_some(void *of) {
    struct writer *w = of;
    struct ic_reach reach;
    for (size_t i = w->first; i + 10 <= PIECES; i += 20)
        assert(ic_target_write(w->target, 10, ats + i, sizes + i, addresses + i, &reach) == 0);
    return NULL;
}

static void test_target(void) {
    int64_t length = make_pieces(600000);
    int fd = memory_file();
    struct writer even = {ic_target_new(fd), 0}, odd = {even.target, 10};
    pthread_t thread;
    assert(even.target && pthread_create(&thread, NULL, write_some, &odd) == 0);
    write_some(&even);
    assert(pthread_join(thread, NULL) == 0);
    ic_target_free(even.target);
    ic_target_free(NULL);
    check_file(fd, length);
}

int main(void) {
    int kernel = 0;
    for (int i = 0; i < ic_kernel_count(); i++)
        kernel = ic_kernel_status(i) == IC_KERNEL_USABLE ? i : kernel;
    for (int round = 0; round < 12; round++) {
        int64_t length = round ? 1 + (int64_t)pick(SIZE - 512) : SIZE;
        int64_t size = (length + 511) / 512 * 512;
        int fd = make_file(length);
        memset(seen, 0, sizeof seen);
        test_read_runs(kernel, fd, length, size);
        assert(memcmp(seen, plain, (size_t)length) == 0);
        test_read_pieces(kernel, fd, length);
        for (int threads = 1; threads <= 4; threads++)
            test_ahead(kernel, fd, length, size, threads, pick(SIZE));
        test_errors(kernel, fd, length);
        close(fd);
        test_write_pieces();
        test_hand_in();
        test_target();
    }
    puts("io: ok");
    return 0;
}
