// The instructions of async_copy.cuh for cuda_on_cpu.h: bytes arrive as late as a GPU may deliver them.
//
// Errors: addresses that are not multiples of 16, or a target that is not in shared memory.
#pragma once

#include "cuda_on_cpu.h"

static inline void copy_async(void* shared, const void* from) {
    auto* to = static_cast<unsigned char*>(shared);
    if (to < shared_memory || to + 16 > shared_memory + sizeof shared_memory)
        cuda_on_cpu::fail("the target of an asynchronous copy is not in shared memory");
    if (reinterpret_cast<uintptr_t>(to) % 16 || reinterpret_cast<uintptr_t>(from) % 16)
        cuda_on_cpu::fail("an asynchronous copy is not aligned to 16 bytes");
    cuda_on_cpu::current->copies.back().push_back({to, from});
}

static inline void end_group() { cuda_on_cpu::current->copies.emplace_back(); }

template <int COUNT>
static inline void wait_for_groups() {
    auto& groups = cuda_on_cpu::current->copies;  // the last one has not ended
    while (groups.size() > COUNT + 1) {
        for (const cuda_on_cpu::Copy& copy : groups.front()) std::memcpy(copy.to, copy.from, 16);
        groups.pop_front();
    }
}
