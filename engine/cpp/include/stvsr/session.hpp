#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "axes.hpp"
#include "bundle.hpp"

struct CUstream_st;  // cudaStream_t points to it

namespace stvsr {

// A float32 tensor in device memory, dense and in row-major order; it belongs to the host.
struct Tensor {
    float* data = nullptr;
    Shape shape;
};

// The inference library that this build uses: "tensorrt" or "tensorrt-rtx".
const char* library();

// The compute capability of a device, as in "sm89"; BackendError where there is no such device.
std::string local_target(int device);

// One engine on one device, with one execution context: one thread runs it at a time.
class Session {
public:
    // Open the engine of `role` that was compiled for this library, this device and `precision` ("fp32" or "fp16").
    // BundleError where there is none, or its inputs and outputs are not the manifest's; BackendError where the library
    // cannot load it. The device becomes the thread's current one.
    Session(const Bundle& bundle, const std::string& role, const std::string& precision = "fp32", int device = 0);
    ~Session();
    Session(Session&&) noexcept;
    Session& operator=(Session&&) noexcept;

    const std::vector<TensorSpec>& inputs() const;
    const std::vector<TensorSpec>& outputs() const;

    // The shapes of all outputs that inputs of these shapes give; RequestError says the range that the engine takes.
    std::map<std::string, Shape> output_shapes(const std::map<std::string, Shape>& inputs) const;

    // Enqueue the engine on the host's stream, and return at once. `inputs` are all of the graph's, optical flows
    // included, by name; `outputs` too, of the shapes that `output_shapes` says. They must stay until the stream has
    // come this far.
    void run(const std::map<std::string, Tensor>& inputs, const std::map<std::string, Tensor>& outputs,
             CUstream_st* stream);

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace stvsr
