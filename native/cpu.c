#include "cpu.h"

#if defined(__x86_64__)

/* The compiler's feature test also asks the operating system (XGETBV) whether it saves
 * the YMM and ZMM registers, so an answer means usable, not merely present.  The test
 * takes literals only. */
unsigned ic_cpu_features(void) {
    unsigned found = 0;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("sse4.2"))
        found |= IC_CPU_SSE42;
    if (__builtin_cpu_supports("pclmul"))
        found |= IC_CPU_PCLMUL;
    if (__builtin_cpu_supports("avx2"))
        found |= IC_CPU_AVX2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        found |= IC_CPU_AVX512;
    if (__builtin_cpu_supports("vpclmulqdq"))
        found |= IC_CPU_VPCLMUL;
    return found;
}

#elif defined(__aarch64__) && defined(__linux__)

#include <sys/auxv.h>

/* The kernel's word (AT_HWCAP): ID registers cannot be read everywhere. */
unsigned ic_cpu_features(void) {
    enum { PMULL = 1 << 4, CRC32 = 1 << 7 }; /* the ABI's numbers, as <asm/hwcap.h> has them */
    unsigned long present = getauxval(AT_HWCAP);
    unsigned found = 0;
    if (present & CRC32)
        found |= IC_CPU_ARM_CRC;
    if (present & PMULL)
        found |= IC_CPU_ARM_PMULL;
    return found;
}

#else

unsigned ic_cpu_features(void) { return 0; }

#endif
