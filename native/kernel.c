#include "kernel.h"

#include "cpu.h"

#if defined(__x86_64__)
#define X86(function) function
#define ARM(function) NULL
#elif defined(__aarch64__)
#define X86(function) NULL
#define ARM(function) function
#else
#define X86(function) NULL
#define ARM(function) NULL
#endif

enum {
    CLMUL = IC_CPU_SSE42 | IC_CPU_PCLMUL,
    AVX2 = CLMUL | IC_CPU_AVX2,
    AVX512 = AVX2 | IC_CPU_AVX512,
    PMULL = IC_CPU_ARM_CRC | IC_CPU_ARM_PMULL
};

/* The order is the order of preference, worst first: the last usable kernel is the
 * default.  A kernel needs every feature that any of its functions uses. */
static const struct ic_kernel kernels[] = {
    {"scalar", 0, ic_is_zero_scalar, ic_crc_scalar},
    {"neon", 0, ARM(ic_is_zero_neon), ARM(ic_crc_scalar)}, /* part of the base of aarch64 */
    {"neon-pmull", PMULL, ARM(ic_is_zero_neon), ARM(ic_crc_pmull)},
    {"clmul", CLMUL, X86(ic_is_zero_scalar), X86(ic_crc_clmul)},
    {"avx2", AVX2, X86(ic_is_zero_avx2), X86(ic_crc_clmul)},
    {"avx2-vpclmul", AVX2 | IC_CPU_VPCLMUL, X86(ic_is_zero_avx2), X86(ic_crc_vpclmul256)},
    {"avx512", AVX512, X86(ic_is_zero_avx512), X86(ic_crc_clmul)},
    {"avx512-vpclmul", AVX512 | IC_CPU_VPCLMUL, X86(ic_is_zero_avx512),
     X86(ic_crc_vpclmul512)},
};

enum { KERNELS = sizeof kernels / sizeof kernels[0] };

int ic_kernel_count(void) { return KERNELS; }

const char *ic_kernel_name(int id) { return id >= 0 && id < KERNELS ? kernels[id].name : NULL; }

int ic_kernel_status_on(int id, unsigned features) {
    if (id < 0 || id >= KERNELS || kernels[id].is_zero == NULL)
        return IC_KERNEL_NOT_BUILT;
    return (kernels[id].needs & ~features) == 0 ? IC_KERNEL_USABLE : IC_KERNEL_CPU_LACKS;
}

int ic_kernel_status(int id) { return ic_kernel_status_on(id, ic_cpu_features()); }

const struct ic_kernel *ic_kernel_get(int id) { return &kernels[id]; }
