// A CUDA runtime on the CPU that catches what a GPU would forgive or corrupt: work is done as late as it may be, new
// memory holds NaN, asynchronous copies take page-locked memory alone, and every address is checked.
//
// FAKE_CUDA_DEVICES, FAKE_CUDA_CAPABILITY (as in 89) and FAKE_CUDA_BYTES say how much of a machine there is.

#include "fake_cuda.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <utility>

struct CUstream_st {
    std::deque<std::function<void()>> work;
    int device;
};

struct CUevent_st {
    CUstream_st* stream = nullptr;
    std::shared_ptr<bool> reached = std::make_shared<bool>(true);
    int device;
};

namespace {

using Blocks = std::map<const char*, std::size_t>;
Blocks device_blocks, pinned_blocks;
std::set<CUstream_st*> streams;
std::size_t device_bytes = 0;
int current = 0;

std::size_t setting(const char* name, std::size_t otherwise) {
    const char* value = std::getenv(name);
    return value ? std::strtoull(value, nullptr, 10) : otherwise;
}

[[noreturn]] void stop(const char* what) {
    std::fprintf(stderr, "fake CUDA: %s\n", what);
    std::abort();
}

void check_block(const Blocks& blocks, const void* memory, std::size_t bytes, const char* what) {
    const char* first = static_cast<const char*>(memory);
    auto block = blocks.upper_bound(first);
    if (block == blocks.begin()) stop(what);
    --block;
    if (first + bytes > block->first + block->second) stop(what);
}

cudaError_t allocate(Blocks& blocks, void** made, std::size_t bytes) {
    *made = std::malloc(bytes);
    std::memset(*made, 0xFF, bytes);
    blocks[static_cast<const char*>(*made)] = bytes;
    return cudaSuccess;
}

std::size_t release(Blocks& blocks, void* memory) {
    if (memory == nullptr) return 0;
    const auto block = blocks.find(static_cast<const char*>(memory));
    if (block == blocks.end()) stop("memory is freed that was not allocated");
    const std::size_t bytes = block->second;
    blocks.erase(block);
    std::free(memory);
    return bytes;
}

void work_until(CUstream_st* stream, const bool* reached) {
    while (!stream->work.empty() && !(reached && *reached)) {
        const auto work = std::move(stream->work.front());
        stream->work.pop_front();
        work();
    }
}

void check_stream(CUstream_st* stream) {
    if (!streams.count(stream)) stop("there is no such stream");
    if (stream->device != current) stop("the stream is of another device");
}

}  // namespace

void fake_enqueue(cudaStream_t stream, std::function<void()> work) {
    check_stream(stream);
    stream->work.push_back(std::move(work));
}

void fake_check_device(const void* memory, std::size_t bytes) {
    check_block(device_blocks, memory, bytes, "an address is none of the device");
}

extern "C" {

const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorMemoryAllocation ? "out of memory"
           : error == cudaErrorNoDevice       ? "no CUDA-capable device is detected"
                                              : "invalid argument";
}

cudaError_t cudaGetLastError() { return cudaSuccess; }

cudaError_t cudaGetDeviceCount(int* count) {
    *count = static_cast<int>(setting("FAKE_CUDA_DEVICES", 1));
    return *count ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaSetDevice(int device) {
    current = device;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    const int capability = static_cast<int>(setting("FAKE_CUDA_CAPABILITY", 89));
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? capability / 10 : capability % 10;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void** made, std::size_t bytes) {
    if (device_bytes + bytes > setting("FAKE_CUDA_BYTES", std::size_t{1} << 30)) return cudaErrorMemoryAllocation;
    device_bytes += bytes;
    return allocate(device_blocks, made, bytes);
}

cudaError_t cudaFree(void* memory) {
    for (CUstream_st* stream : streams) work_until(stream, nullptr);
    device_bytes -= release(device_blocks, memory);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void** made, std::size_t bytes) { return allocate(pinned_blocks, made, bytes); }

cudaError_t cudaFreeHost(void* memory) {
    release(pinned_blocks, memory);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    const char* const pageable = "a copy between host and device is of memory that is not page-locked";
    const auto check = [=] {
        check_block(kind == cudaMemcpyDeviceToHost ? pinned_blocks : device_blocks, to, bytes, pageable);
        check_block(kind == cudaMemcpyHostToDevice ? pinned_blocks : device_blocks, from, bytes, pageable);
    };
    check();
    fake_enqueue(stream, [=] {
        check();
        std::memcpy(to, from, bytes);
    });
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    *stream = new CUstream_st{{}, current};
    streams.insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    work_until(stream, nullptr);
    streams.erase(stream);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    if (!streams.count(stream)) stop("there is no such stream");
    work_until(stream, nullptr);
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    *event = new CUevent_st;
    (*event)->device = current;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    if (event->device != stream->device) stop("the event is of another device than the stream");
    event->stream = stream;
    event->reached = std::make_shared<bool>(false);
    fake_enqueue(stream, [reached = event->reached] { *reached = true; });
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    if (!*event->reached) work_until(event->stream, event->reached.get());
    return cudaSuccess;
}

}  // extern "C"
