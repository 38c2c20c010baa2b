#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <string>

#include "errors.hpp"

// What the host holds of CUDA, each freed with its owner.
namespace stvsr {

inline void check(cudaError_t status, const std::string& what) {
    if (status == cudaSuccess) return;
    throw BackendError("CUDA cannot " + what + " (" + cudaGetErrorString(status) +
                       "): see that the driver is at least as new as the CUDA runtime, and that the GPU is free.");
}

// Float32 memory of a device, or of the host and page-locked, that grows as it is asked to.
template <cudaError_t (*allocate)(void**, std::size_t), cudaError_t (*release)(void*)>
class Memory {
public:
    // At least so many values; what was held before is lost where it was too small.
    float* reserve(std::size_t count) {
        if (count > count_) {
            values_.reset();
            count_ = 0;
            void* made = nullptr;
            if (const cudaError_t status = allocate(&made, count * sizeof(float)); status != cudaSuccess) {
                cudaGetLastError();
                throw BackendError("There is no memory for " + std::to_string(count * sizeof(float)) + " bytes more (" +
                                   cudaGetErrorString(status) +
                                   "): give smaller frames, or free the device.");
            }
            values_.reset(static_cast<float*>(made));
            count_ = count;
        }
        return values_.get();
    }

    float* data() const { return values_.get(); }

private:
    struct Release {
        void operator()(float* values) const { release(values); }
    };
    std::unique_ptr<float, Release> values_;
    std::size_t count_ = 0;
};

inline cudaError_t allocate_device(void** made, std::size_t bytes) { return cudaMalloc(made, bytes); }
inline cudaError_t allocate_pinned(void** made, std::size_t bytes) { return cudaMallocHost(made, bytes); }

using DeviceMemory = Memory<allocate_device, cudaFree>;
using PinnedMemory = Memory<allocate_pinned, cudaFreeHost>;

// A mark in a stream that the host can wait for.
class Event {
public:
    Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "make an event"); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    ~Event() { cudaEventDestroy(event_); }

    void record(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "record an event"); }
    void wait() { check(cudaEventSynchronize(event_), "finish the work on the device"); }

private:
    cudaEvent_t event_ = nullptr;
};

}  // namespace stvsr
