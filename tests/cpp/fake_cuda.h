// What the fake inference library needs of the fake CUDA runtime.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>

// Work is done as late as CUDA allows: when the host waits for it.
void fake_enqueue(cudaStream_t stream, std::function<void()> work);
// Stop the process unless so many bytes from here on are memory of the device.
void fake_check_device(const void* memory, std::size_t bytes);
