// CUDA's vector types and arithmetic for cuda_on_cpu.h. Fast math functions compute in full precision here.
#pragma once

#include <cmath>
#include <type_traits>

#define CUDA_ON_CPU_VECTORS(scalar, name, bytes)                                                        \
    struct name##1 { scalar x; };                                                                       \
    struct __align__(2 * bytes) name##2 { scalar x, y; };                                               \
    struct name##3 { scalar x, y, z; };                                                                 \
    struct __align__(4 * bytes) name##4 { scalar x, y, z, w; };                                         \
    static inline name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }                         \
    static inline name##3 make_##name##3(scalar x, scalar y, scalar z) { return {x, y, z}; }            \
    static inline name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }
CUDA_ON_CPU_VECTORS(float, float, 4)
CUDA_ON_CPU_VECTORS(int, int, 4)
CUDA_ON_CPU_VECTORS(unsigned int, uint, 4)
CUDA_ON_CPU_VECTORS(short, short, 2)
CUDA_ON_CPU_VECTORS(unsigned short, ushort, 2)
CUDA_ON_CPU_VECTORS(unsigned char, uchar, 1)

template <typename A, typename B>
std::common_type_t<A, B> min(A a, B b) { return b < a ? b : a; }
template <typename A, typename B>
std::common_type_t<A, B> max(A a, B b) { return a < b ? b : a; }

template <typename V>
V __ldg(const V* address) { return *address; }
template <typename V>
V __ldcs(const V* address) { return *address; }
template <typename V>
void __stcs(V* address, V value) { *address = value; }

static inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
static inline float __saturatef(float x) { return std::fmin(std::fmax(x, 0.0f), 1.0f); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __frcp_rn(float x) { return 1 / x; }
static inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
static inline int __float2int_rd(float x) { return static_cast<int>(std::floor(x)); }
static inline int __float2int_rz(float x) { return static_cast<int>(x); }
static inline unsigned __float2uint_rn(float x) { return static_cast<unsigned>(std::nearbyint(x)); }
static inline int __mul24(int a, int b) { return a * b; }
// Macros, since the C library has functions of these names already.
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __expf(x) expf(x)
#define __exp2f(x) exp2f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __powf(x, y) powf(x, y)
#define __sincosf(x, s, c) sincosf(x, s, c)
