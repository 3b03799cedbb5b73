/* What the processor has and the operating system lets programs use. */
#ifndef IMGCONV_CPU_H
#define IMGCONV_CPU_H

/* Sets of these are ORed together. */
enum {
    IC_CPU_SSE42 = 1 << 0,
    IC_CPU_PCLMUL = 1 << 1,
    IC_CPU_AVX2 = 1 << 2,
    IC_CPU_AVX512 = 1 << 3, /* F, BW and VL together */
    IC_CPU_VPCLMUL = 1 << 4,
    IC_CPU_ARM_CRC = 1 << 5,
    IC_CPU_ARM_PMULL = 1 << 6
};

/* The features of this machine; those of other architectures are never among them. */
unsigned ic_cpu_features(void);

#endif
