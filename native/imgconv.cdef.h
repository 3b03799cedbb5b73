enum { IC_KERNEL_USABLE, IC_KERNEL_NOT_BUILT, IC_KERNEL_CPU_LACKS, ... };
int ic_kernel_count(void);
const char *ic_kernel_name(int id);
int ic_kernel_status(int id);

int ic_is_zero(int kernel, const uint8_t *p, size_t n);
size_t ic_data_runs(int kernel, const uint8_t *p, size_t n, size_t granule, int64_t *starts,
                    int64_t *stops);

enum { IC_CRC32C, IC_CRC64_XZ, IC_CRC64_NVME, ... };
uint64_t ic_crc_update(int kernel, int crc_id, uint64_t crc, const uint8_t *p, size_t n);
uint64_t ic_crc_combine(int crc_id, uint64_t crc_a, uint64_t crc_b, uint64_t length_b);
uint64_t ic_crc_zeros(int crc_id, uint64_t crc, uint64_t n);
