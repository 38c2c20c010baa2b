#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <string>

#include "stvsr/errors.hpp"

// Owners of CUDA memory and events.
namespace stvsr {

// Throw BackendError unless a call succeeded; `action` completes "CUDA cannot ...".
inline void check(cudaError_t status, const std::string& action) {
    if (status == cudaSuccess) return;
    throw BackendError("CUDA cannot " + action + " (" + cudaGetErrorString(status) +
                       "): check that the driver is at least as new as the CUDA runtime, and that the GPU is free.");
}

// A float32 buffer that grows on request, in device memory or in page-locked host memory.
template <cudaError_t (*allocate)(void**, std::size_t), cudaError_t (*release)(void*)>
class Buffer {
public:
    // Make room for at least `count` values. The content is lost if the buffer has to grow.
    float* reserve(std::size_t count) {
        if (count > count_) {
            values_.reset();
            count_ = 0;
            void* memory = nullptr;
            if (const cudaError_t status = allocate(&memory, count * sizeof(float)); status != cudaSuccess) {
                cudaGetLastError();  // clears the error, which later calls would report again
                throw BackendError("Cannot allocate " + std::to_string(count * sizeof(float)) + " bytes (" +
                                   cudaGetErrorString(status) + "): use smaller frames, or free memory.");
            }
            values_.reset(static_cast<float*>(memory));
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

inline cudaError_t allocate_device(void** memory, std::size_t bytes) { return cudaMalloc(memory, bytes); }
inline cudaError_t allocate_pinned(void** memory, std::size_t bytes) { return cudaMallocHost(memory, bytes); }

using DeviceBuffer = Buffer<allocate_device, cudaFree>;
using PinnedBuffer = Buffer<allocate_pinned, cudaFreeHost>;

// A point in a stream's work that the host can wait for.
class Event {
public:
    Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "create an event"); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    ~Event() { cudaEventDestroy(event_); }

    void record(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "record an event"); }
    void wait() { check(cudaEventSynchronize(event_), "finish the work on the device"); }

private:
    cudaEvent_t event_ = nullptr;
};

}  // namespace stvsr
