// CUDA's half precision for cuda_on_cpu.h: every operation rounds to half, as on a GPU.
#pragma once

#include "cuda_on_cpu.h"

struct __align__(2) __half {
    _Float16 value;

    __half() = default;
    __half(float x) : value(static_cast<_Float16>(x)) {}
    __half(double x) : value(static_cast<_Float16>(x)) {}
    __half(int x) : value(static_cast<_Float16>(x)) {}
    operator float() const { return static_cast<float>(value); }
};
using half = __half;

static inline __half operator+(__half a, __half b) { return __half(float(a) + float(b)); }
static inline __half operator-(__half a, __half b) { return __half(float(a) - float(b)); }
static inline __half operator*(__half a, __half b) { return __half(float(a) * float(b)); }
static inline __half operator/(__half a, __half b) { return __half(float(a) / float(b)); }
static inline __half operator-(__half a) { return __half(-float(a)); }
static inline __half& operator+=(__half& a, __half b) { return a = a + b; }
static inline __half& operator*=(__half& a, __half b) { return a = a * b; }
static inline bool operator<(__half a, __half b) { return float(a) < float(b); }
static inline bool operator>(__half a, __half b) { return float(a) > float(b); }
