// Functions of the fake CUDA runtime that the fake inference library uses.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>

// Enqueue work on a stream. It runs as late as CUDA allows: when the host waits for it.
void fake_enqueue(cudaStream_t stream, std::function<void()> work);
// Abort the process unless `bytes` bytes from `memory` on are device memory.
void fake_check_device(const void* memory, std::size_t bytes);
