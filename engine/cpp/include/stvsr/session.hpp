#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "stvsr/axes.hpp"
#include "stvsr/bundle.hpp"

struct CUstream_st;  // cudaStream_t is a pointer to it

namespace stvsr {

// A dense, row-major float32 tensor in device memory that the caller owns.
struct Tensor {
    float* data = nullptr;
    Shape shape;
};

// Return the inference library of this build: "tensorrt" or "tensorrt-rtx".
const char* library();

// Return the compute capability of a device, as in "sm89". Throws BackendError if there is no such device.
std::string local_target(int device);

// One engine on one device, with one execution context. Not thread-safe: one thread may run it at a time.
class Session {
public:
    // Open the engine of `role` that was compiled for this library, this device and `precision` ("fp32", "tf32" or
    // "fp16").
    // The device becomes the current one of the calling thread. Throws BundleError if there is no such engine or its
    // inputs and outputs differ from the manifest's, and BackendError if the library cannot load it.
    Session(const Bundle& bundle, const std::string& role, const std::string& precision = "fp32", int device = 0);
    ~Session();
    Session(Session&&) noexcept;
    Session& operator=(Session&&) noexcept;

    const std::vector<TensorSpec>& inputs() const;
    const std::vector<TensorSpec>& outputs() const;

    // Return the shapes of all outputs for inputs of these shapes. Throws RequestError, with the range that the engine
    // takes, if an input is missing or out of range.
    std::map<std::string, Shape> output_shapes(const std::map<std::string, Shape>& inputs) const;

    // Enqueue the engine on the caller's stream and return at once. `inputs` are all inputs of the graph by name,
    // optical flows included; `outputs` are all outputs, of the shapes that `output_shapes` returns. The memory must
    // stay valid until the stream has run the engine. Throws RequestError if a tensor is missing or has another shape.
    void run(const std::map<std::string, Tensor>& inputs, const std::map<std::string, Tensor>& outputs,
             CUstream_st* stream);

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace stvsr
