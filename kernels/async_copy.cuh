// Copies from device memory to shared memory that do not pass through registers. Written in PTX.
#pragma once

#ifdef CUDA_ON_CPU
#include "async_copy_on_cpu.h"
#else

// Starts to copy 16 bytes; both addresses are multiples of 16.
static __device__ __forceinline__ void copy_async(void* shared, const void* from) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" : : "r"(address), "l"(from) : "memory");
}

// Makes a group of this thread's copies since the last group.
static __device__ __forceinline__ void end_group() { asm volatile("cp.async.commit_group;" : : : "memory"); }

// Waits until all but the last `COUNT` groups of this thread are copied; other threads need a barrier too.
template <int COUNT>
static __device__ __forceinline__ void wait_for_groups() {
    asm volatile("cp.async.wait_group %0;" : : "n"(COUNT) : "memory");
}
#endif
