// Half precision for cuda_on_cpu.h, under CUDA's names: every operation rounds to half, as on a GPU.
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

static inline float __half2float(__half x) { return static_cast<float>(x.value); }
static inline __half __float2half(float x) { return __half(x); }
static inline __half __float2half_rn(float x) { return __half(x); }
static inline unsigned short __half_as_ushort(__half x) {
    unsigned short bits;
    std::memcpy(&bits, &x, 2);
    return bits;
}
static inline __half __ushort_as_half(unsigned short bits) {
    __half x;
    std::memcpy(&x, &bits, 2);
    return x;
}

static inline __half operator+(__half a, __half b) { return __half(float(a) + float(b)); }
static inline __half operator-(__half a, __half b) { return __half(float(a) - float(b)); }
static inline __half operator*(__half a, __half b) { return __half(float(a) * float(b)); }
static inline __half operator/(__half a, __half b) { return __half(float(a) / float(b)); }
static inline __half operator-(__half a) { return __half(-float(a)); }
static inline __half& operator+=(__half& a, __half b) { return a = a + b; }
static inline __half& operator*=(__half& a, __half b) { return a = a * b; }
static inline bool operator<(__half a, __half b) { return float(a) < float(b); }
static inline bool operator>(__half a, __half b) { return float(a) > float(b); }
static inline __half __hadd(__half a, __half b) { return a + b; }
static inline __half __hmul(__half a, __half b) { return a * b; }
// The product is exact in double, and so is rounded once.
static inline __half __hfma(__half a, __half b, __half c) { return __half(double(float(a)) * float(b) + float(c)); }

struct __align__(4) __half2 {
    __half x, y;
};
using half2 = __half2;

static inline __half2 make_half2(__half x, __half y) { return {x, y}; }
static inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
static inline __half2 __half2half2(__half x) { return {x, x}; }
static inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
static inline __half2 __float2half2_rn(float x) { return {__half(x), __half(x)}; }
static inline __half2 __float22half2_rn(float2 v) { return {__half(v.x), __half(v.y)}; }
static inline float2 __half22float2(__half2 v) { return {float(v.x), float(v.y)}; }
static inline __half __low2half(__half2 v) { return v.x; }
static inline __half __high2half(__half2 v) { return v.y; }
static inline float __low2float(__half2 v) { return float(v.x); }
static inline float __high2float(__half2 v) { return float(v.y); }
static inline __half2 __hadd2(__half2 a, __half2 b) { return {a.x + b.x, a.y + b.y}; }
static inline __half2 __hmul2(__half2 a, __half2 b) { return {a.x * b.x, a.y * b.y}; }
static inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }
