// CUDA's vector types and arithmetic for cuda_on_cpu.h, as far as kernels use them. Fast math has full precision.
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

template <typename A, typename B>
std::common_type_t<A, B> min(A a, B b) { return b < a ? b : a; }
template <typename A, typename B>
std::common_type_t<A, B> max(A a, B b) { return a < b ? b : a; }

// A macro, because the C library already has a function with this name.
#define __sinf(x) sinf(x)
