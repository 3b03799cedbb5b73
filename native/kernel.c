#include "kernel.h"

/* The order is the order of preference, worst first: the last usable kernel is
 * the default. */
static const struct ic_kernel kernels[] = {
    {"scalar", ic_is_zero_scalar, ic_crc_scalar},
#if defined(__aarch64__)
    {"neon", ic_is_zero_neon, ic_crc_scalar},
#else
    {"neon", NULL, NULL},
#endif
#if defined(__x86_64__)
    {"avx2", ic_is_zero_avx2, ic_crc_clmul},
    {"avx512", ic_is_zero_avx512, ic_crc_vclmul},
#else
    {"avx2", NULL, NULL},
    {"avx512", NULL, NULL},
#endif
};

enum { KERNELS = sizeof kernels / sizeof kernels[0], NEON = 1, AVX2 = 2, AVX512 = 3 };

/* The compiler's feature test also asks the operating system (XGETBV) whether it
 * saves the wide registers, so "supported" means usable, not merely present. */
static int cpu_runs(int id) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (id == AVX2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("pclmul");
    if (id == AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("vpclmulqdq") &&
               __builtin_cpu_supports("pclmul");
#else
    (void)id; /* NEON is part of the base architecture of aarch64. */
#endif
    return 1;
}

int ic_kernel_count(void) { return KERNELS; }

const char *ic_kernel_name(int id) { return id >= 0 && id < KERNELS ? kernels[id].name : NULL; }

int ic_kernel_status(int id) {
    if (id < 0 || id >= KERNELS || kernels[id].is_zero == NULL)
        return IC_KERNEL_NOT_BUILT;
    return cpu_runs(id) ? IC_KERNEL_USABLE : IC_KERNEL_CPU_LACKS;
}

const struct ic_kernel *ic_kernel_get(int id) { return &kernels[id]; }
