// SPDX-License-Identifier: Apache-2.0
// What lets one header compile with g++, clang and NVRTC: no STL, no exceptions, no allocation.
#pragma once

#ifdef __CUDACC_RTC__  // NVRTC has no system headers
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#else
#include <stdint.h>
#include <string.h>
#endif

#ifdef __CUDACC__
#define EDGERUN_HD __host__ __device__
#else
#define EDGERUN_HD
#endif

#define EDGERUN_RESTRICT __restrict__  // without it the compiler won't vectorise a loop that stores bytes

// Row loops must be inlined into each clone below, or they would run with the baseline instruction set.
#define EDGERUN_INLINE inline __attribute__((always_inline))

// Two neighbouring samples as one number, wherever they lie: the earlier one is the low half (little-endian, as x86 and
// ARM run Linux).
typedef uint16_t __attribute__((may_alias, aligned(1))) BytePair;

// One body, several instruction sets, chosen when the module is loaded (needs GNU ifunc). Elsewhere -O3 is all:
// on ARM that already means NEON. EDGERUN_X86_LEVEL caps the level, so that tests can run the lesser clones.
#ifndef EDGERUN_X86_LEVEL
#define EDGERUN_X86_LEVEL 4
#endif
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__)
#if EDGERUN_X86_LEVEL >= 4
#define EDGERUN_AVX512 __attribute__((target("arch=x86-64-v4")))  // where intrinsics beat what the compiler makes
#define EDGERUN_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#elif EDGERUN_X86_LEVEL == 3
#define EDGERUN_CLONES __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define EDGERUN_CLONES
#endif
#else
#define EDGERUN_CLONES
#endif
