// Runs a CUDA source on a CPU, so that kernels are tested without a GPU.
//
// The threads of a block are fibers that run one after another, in an order that is shuffled after each barrier: a
// missing barrier breaks a kernel here as on a GPU. Blocks run one by one, each with its dynamic shared memory filled
// with NaN. Errors: a barrier that some threads of the block (or warp) do not reach, or reach on another line; a write
// beyond the dynamic shared memory.
//
// A kernel must declare its dynamic shared memory as
//     extern __shared__ __align__(128) unsigned char shared_memory[];
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#define CUDA_ON_CPU
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __shared__ thread_local

#include "cuda_math.h"

struct dim3 { unsigned int x = 1, y = 1, z = 1; };

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
constexpr int warpSize = 32;

constexpr size_t CUDA_ON_CPU_SHARED_BYTES = 227 << 10;  // the largest limit of any GPU
constexpr size_t CUDA_ON_CPU_GUARD_BYTES = 4 << 10;
thread_local __align__(128) unsigned char shared_memory[CUDA_ON_CPU_SHARED_BYTES + CUDA_ON_CPU_GUARD_BYTES];

// --------------------------------------------------------------------------------------------------------- execution

namespace cuda_on_cpu {

constexpr size_t STACK_BYTES = 128 << 10;
constexpr unsigned char POISON = 0xff;  // a float or half of such bytes is NaN

enum class State { ready, at_block_barrier, at_warp_barrier, returned };

struct Copy {
    void* to;
    const void* from;
};

struct Thread {
    ucontext_t context;
    uint3 index;
    int number;  // in the block
    State state;
    int line;  // of the barrier that it waits at
    std::deque<std::vector<Copy>> copies;  // groups of asynchronous copies that are not made yet
};

// Values that the lanes of a warp exchange.
struct Exchange {
    unsigned char lane[32][8];
    const void* rows[32];
    unsigned words[6][32];
};

static std::vector<Thread> threads;
static std::vector<Exchange> exchanges;
static std::vector<unsigned char> stacks;
static std::function<void()> kernel;
static ucontext_t scheduler;
static Thread* current;
static std::string error;

static inline void wait(State state, int line) {
    current->state = state;
    current->line = line;
    swapcontext(&current->context, &scheduler);
}

[[noreturn]] static inline void fail(const std::string& message) {
    error = message;
    setcontext(&scheduler);
    __builtin_unreachable();
}

static inline void sync_warp(int line) { wait(State::at_warp_barrier, line); }
static inline int lane() { return current->number % warpSize; }
static inline Exchange& exchange() { return exchanges[current->number / warpSize]; }

static void run_thread() {
    kernel();
    current->state = State::returned;
    setcontext(&scheduler);
}

// Makes the threads [first, last) ready and returns true if all of them wait at the same barrier of this kind.
static bool release(size_t first, size_t last, State barrier) {
    for (size_t i = first; i < last; ++i)
        if (threads[i].state != barrier || threads[i].line != threads[first].line) return false;
    for (size_t i = first; i < last; ++i) threads[i].state = State::ready;
    return true;
}

static std::string describe_deadlock() {
    std::string text = "a barrier is not reached by all threads of its block or warp:";
    size_t returned = 0;
    std::vector<std::pair<std::pair<State, int>, int>> waiting;
    for (const Thread& thread : threads) {
        if (thread.state == State::returned) { ++returned; continue; }
        const auto barrier = std::make_pair(thread.state, thread.line);
        auto entry = std::find_if(waiting.begin(), waiting.end(), [&](auto& each) { return each.first == barrier; });
        if (entry == waiting.end()) entry = waiting.insert(waiting.end(), {barrier, 0});
        ++entry->second;
    }
    for (const auto& [barrier, count] : waiting)
        text += " " + std::to_string(count) + " wait at " +
                (barrier.first == State::at_block_barrier ? "__syncthreads" : "a warp's barrier") + " in line " +
                std::to_string(barrier.second) + ",";
    return text + " " + std::to_string(returned) + " of " + std::to_string(threads.size()) + " have returned";
}

static void run_block(size_t shared_bytes) {
    const size_t count = threads.size();
    std::memset(shared_memory, POISON, sizeof shared_memory);
    std::vector<size_t> order(count);
    for (size_t i = 0; i < count; ++i) {
        Thread& thread = threads[i];
        order[i] = i;
        thread.number = static_cast<int>(i);
        thread.index = {static_cast<unsigned>(i % blockDim.x), static_cast<unsigned>(i / blockDim.x % blockDim.y),
                        static_cast<unsigned>(i / blockDim.x / blockDim.y)};
        thread.state = State::ready;
        thread.copies.assign(1, {});
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = stacks.data() + i * STACK_BYTES;
        thread.context.uc_stack.ss_size = STACK_BYTES;
        thread.context.uc_link = nullptr;
        makecontext(&thread.context, run_thread, 0);
    }
    uint32_t random = 1;
    for (;;) {
        for (size_t i = count; i > 1; --i) {
            random = random * 1664525u + 1013904223u;
            std::swap(order[i - 1], order[(random >> 8) % i]);
        }
        for (size_t i : order) {
            if (threads[i].state != State::ready) continue;
            current = &threads[i];
            threadIdx = current->index;
            swapcontext(&scheduler, &current->context);
            if (!error.empty()) return;
        }
        if (std::all_of(threads.begin(), threads.end(), [](auto& t) { return t.state == State::returned; })) break;
        bool released = release(0, count, State::at_block_barrier);
        for (size_t first = 0; first < count; first += warpSize)
            released |= release(first, std::min(first + warpSize, count), State::at_warp_barrier);
        if (!released) {
            error = describe_deadlock();
            return;
        }
    }
    for (size_t i = shared_bytes; i < sizeof shared_memory; ++i)
        if (shared_memory[i] != POISON) {
            error = "byte " + std::to_string(i) + " of shared memory was written, but the launch has " +
                    std::to_string(shared_bytes) + " bytes";
            return;
        }
}

// Runs all blocks. Returns the error, or an empty text.
static const char* run(std::function<void()> body, const unsigned* grid, const unsigned* block, size_t shared_bytes) {
    const size_t count = size_t{block[0]} * block[1] * block[2];
    error.clear();
    if (count < 1 || count > 1024) return "a block has 1 to 1024 threads";
    if (shared_bytes > CUDA_ON_CPU_SHARED_BYTES) return "a block has at most 227 KiB of shared memory";
    kernel = std::move(body);
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    threads.resize(count);
    exchanges.resize((count + warpSize - 1) / warpSize);
    stacks.resize(std::max(stacks.size(), count * STACK_BYTES));
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) {
                run_block(shared_bytes);
                if (!error.empty()) return error.c_str();
            }
    return "";
}

// Calls a kernel with arguments by address. Their sizes in bytes must be those of the kernel's parameters.
template <typename... Parameters, size_t... I>
const char* launch(void (*function)(Parameters...), std::index_sequence<I...>, const unsigned* grid,
                   const unsigned* block, size_t shared_bytes, size_t count, void** arguments, const size_t* sizes) {
    static std::string problem;
    const size_t expected[] = {sizeof(Parameters)..., 0};
    if (count != sizeof...(I))
        return (problem = "the kernel takes " + std::to_string(sizeof...(I)) + " arguments, not " +
                          std::to_string(count)).c_str();
    for (size_t i = 0; i < count; ++i)
        if (sizes[i] != expected[i])
            return (problem = "argument " + std::to_string(i) + " has " + std::to_string(sizes[i]) +
                              " bytes, its parameter " + std::to_string(expected[i])).c_str();
    auto body = [=] { function(*static_cast<std::remove_reference_t<Parameters>*>(arguments[I])...); };
    return run(body, grid, block, shared_bytes);
}

template <typename... Parameters>
const char* launch(void (*function)(Parameters...), const unsigned* grid, const unsigned* block, size_t shared_bytes,
                   size_t count, void** arguments, const size_t* sizes) {
    return launch(function, std::index_sequence_for<Parameters...>{}, grid, block, shared_bytes, count, arguments,
                  sizes);
}

}  // namespace cuda_on_cpu

// Exports a kernel as launch_NAME, which returns the error, or an empty text.
#define CUDA_ON_CPU_KERNEL(name)                                                                              \
    extern "C" const char* launch_##name(const unsigned* grid, const unsigned* block, size_t shared_bytes,    \
                                         size_t count, void** arguments, const size_t* sizes) {               \
        return cuda_on_cpu::launch(name, grid, block, shared_bytes, count, arguments, sizes);                 \
    }

// ------------------------------------------------------------------------------------------- barriers and exchanges

static inline void __syncthreads(int line = __builtin_LINE()) {
    cuda_on_cpu::wait(cuda_on_cpu::State::at_block_barrier, line);
}

static inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
    if (mask != 0xffffffffu) cuda_on_cpu::fail("__syncwarp is supported for whole warps only");
    cuda_on_cpu::sync_warp(line);
}

namespace cuda_on_cpu {
template <typename V>
V take(V value, int from, int line) {
    static_assert(sizeof(V) <= 8);
    std::memcpy(exchange().lane[lane()], &value, sizeof value);
    sync_warp(line);
    std::memcpy(&value, exchange().lane[from], sizeof value);
    sync_warp(line);
    return value;
}
}  // namespace cuda_on_cpu

template <typename V>
V __shfl_xor_sync(unsigned, V value, int bits, int width = 32, int line = __builtin_LINE()) {
    const int lane = cuda_on_cpu::lane(), from = lane ^ bits;
    return cuda_on_cpu::take(value, from / width == lane / width ? from : lane, line);
}

template <typename V>
V __shfl_sync(unsigned, V value, int lane, int line = __builtin_LINE()) {
    return cuda_on_cpu::take(value, lane, line);
}
