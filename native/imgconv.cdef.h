enum { IC_KERNEL_USABLE, IC_KERNEL_NOT_BUILT, IC_KERNEL_CPU_LACKS, ... };
int ic_kernel_count(void);
const char *ic_kernel_name(int id);
int ic_kernel_status(int id);

int ic_is_zero(int kernel, const uint8_t *p, size_t n);
size_t ic_data_runs(int kernel, const uint8_t *p, size_t n, size_t granule, int64_t *starts,
                    int64_t *stops);

size_t ic_repeats(const uint8_t *p, size_t n, size_t distance);

struct ic_zstd {
    void *(*create)(void);
    size_t (*destroy)(void *);
    unsigned long long (*content_size)(const void *, size_t);
    size_t (*frame_size)(const void *, size_t);
    size_t (*decode)(void *, void *, size_t, const void *, size_t);
};
size_t ic_decode_frames(const struct ic_zstd *zstd, size_t frames, const uint8_t *streams,
                        const int64_t *wheres, const int64_t *lengths, uint8_t *buffer,
                        const int64_t *places, const int64_t *sizes);

enum { IC_CRC32, IC_CRC32C, IC_CRC64_XZ, IC_CRC64_NVME, ... };
uint64_t ic_crc_update(int kernel, int crc_id, uint64_t crc, const uint8_t *p, size_t n);
uint64_t ic_crc_combine(int crc_id, uint64_t crc_a, uint64_t crc_b, uint64_t length_b);
uint64_t ic_crc_zeros(int crc_id, uint64_t crc, uint64_t n);

enum { IC_END_OF_FILE, ... };
struct ic_reach {
    int64_t count;
    int64_t at;
};
int ic_file_extents(int fd, int64_t length, int64_t volume, size_t room, int64_t *starts,
                    int64_t *stops, struct ic_reach *reach);
struct ic_map {
    size_t count;
    const int64_t *starts, *stops, *wheres;
};
int ic_read_runs(int kernel, int fd, int64_t length, const struct ic_map *map, size_t granule,
                 size_t ranges, const int64_t *starts, const int64_t *stops, uint8_t *buffer,
                 int64_t *run_starts, int64_t *run_stops, int64_t *wheres,
                 struct ic_reach *reach);
int ic_write_pieces(int fd, size_t pieces, const int64_t *ats, const int64_t *sizes,
                    const uint64_t *addresses, struct ic_reach *reach);

struct ic_target;
struct ic_target *ic_target_new(int fd);
int ic_target_write(struct ic_target *target, size_t pieces, const int64_t *ats,
                    const int64_t *sizes, const uint64_t *addresses, struct ic_reach *reach);
void ic_target_free(struct ic_target *target);

enum { IC_AHEAD_GRANULE, ... };
struct ic_ahead;
struct ic_run {
    int64_t start, stop, where;
};
struct ic_ahead *ic_ahead_begin(int kernel, int fd, int64_t length, int64_t size, int full,
                                int threads, uint8_t *arena, size_t room);
int64_t ic_ahead_end(struct ic_ahead *ahead);
const struct ic_run *ic_ahead_runs(const struct ic_ahead *ahead, size_t *count);
void ic_ahead_free(struct ic_ahead *ahead);
