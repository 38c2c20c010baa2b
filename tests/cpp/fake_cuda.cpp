// A CUDA runtime on the CPU that detects errors which a GPU would hide: work runs as late as possible, new memory is
// filled with NaN, asynchronous copies accept only page-locked memory on the host, and every address is checked.
//
// Environment variables configure the machine: FAKE_CUDA_DEVICES (number), FAKE_CUDA_CAPABILITY (such as 89) and
// FAKE_CUDA_BYTES (device memory).

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
int current_device = 0;

std::size_t setting(const char* name, std::size_t default_value) {
    const char* value = std::getenv(name);
    return value ? std::strtoull(value, nullptr, 10) : default_value;
}

[[noreturn]] void stop(const char* message) {
    std::fprintf(stderr, "fake CUDA: %s\n", message);
    std::abort();
}

void check_block(const Blocks& blocks, const void* memory, std::size_t bytes, const char* message) {
    const char* first = static_cast<const char*>(memory);
    auto block = blocks.upper_bound(first);
    if (block == blocks.begin()) stop(message);
    --block;
    if (first + bytes > block->first + block->second) stop(message);
}

cudaError_t allocate(Blocks& blocks, void** memory, std::size_t bytes) {
    *memory = std::malloc(bytes);
    std::memset(*memory, 0xFF, bytes);
    blocks[static_cast<const char*>(*memory)] = bytes;
    return cudaSuccess;
}

std::size_t release(Blocks& blocks, void* memory) {
    if (memory == nullptr) return 0;
    const auto block = blocks.find(static_cast<const char*>(memory));
    if (block == blocks.end()) stop("freed memory that was not allocated");
    const std::size_t bytes = block->second;
    blocks.erase(block);
    std::free(memory);
    return bytes;
}

// Run the stream's work, all of it or until an event is reached.
void run_until(CUstream_st* stream, const bool* reached) {
    while (!stream->work.empty() && !(reached && *reached)) {
        const auto next = std::move(stream->work.front());
        stream->work.pop_front();
        next();
    }
}

void check_stream(CUstream_st* stream) {
    if (!streams.count(stream)) stop("unknown stream");
    if (stream->device != current_device) stop("the stream belongs to another device");
}

}  // namespace

void fake_enqueue(cudaStream_t stream, std::function<void()> work) {
    check_stream(stream);
    stream->work.push_back(std::move(work));
}

void fake_check_device(const void* memory, std::size_t bytes) {
    check_block(device_blocks, memory, bytes, "an address is not in device memory");
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
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    const int capability = static_cast<int>(setting("FAKE_CUDA_CAPABILITY", 89));
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? capability / 10 : capability % 10;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
    if (device_bytes + bytes > setting("FAKE_CUDA_BYTES", std::size_t{1} << 30)) return cudaErrorMemoryAllocation;
    device_bytes += bytes;
    return allocate(device_blocks, memory, bytes);
}

cudaError_t cudaFree(void* memory) {
    for (CUstream_st* stream : streams) run_until(stream, nullptr);
    device_bytes -= release(device_blocks, memory);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void** memory, std::size_t bytes) { return allocate(pinned_blocks, memory, bytes); }

cudaError_t cudaFreeHost(void* memory) {
    release(pinned_blocks, memory);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    const char* const message = "a copy uses an address outside device memory and page-locked host memory";
    const auto check = [=] {
        check_block(kind == cudaMemcpyDeviceToHost ? pinned_blocks : device_blocks, to, bytes, message);
        check_block(kind == cudaMemcpyHostToDevice ? pinned_blocks : device_blocks, from, bytes, message);
    };
    check();
    fake_enqueue(stream, [=] {
        check();
        std::memcpy(to, from, bytes);
    });
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    *stream = new CUstream_st{{}, current_device};
    streams.insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    run_until(stream, nullptr);
    streams.erase(stream);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    if (!streams.count(stream)) stop("unknown stream");
    run_until(stream, nullptr);
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    *event = new CUevent_st;
    (*event)->device = current_device;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    if (event->device != stream->device) stop("the event and the stream belong to different devices");
    event->stream = stream;
    event->reached = std::make_shared<bool>(false);
    fake_enqueue(stream, [reached = event->reached] { *reached = true; });
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    if (!*event->reached) run_until(event->stream, event->reached.get());
    return cudaSuccess;
}

}  // extern "C"
