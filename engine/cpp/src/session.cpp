#include "session.hpp"

#include <NvInferRuntime.h>

#include <mutex>
#include <utility>

#include "axes.hpp"
#include "device.hpp"

#ifndef STVSR_LIBRARY
#error "STVSR_LIBRARY names the inference library: \"tensorrt\" or \"tensorrt-rtx\""
#endif

namespace stvsr {
namespace {

// Keeps the last error for the sentence that tells of it; the library keeps using the first logger that it is given.
class Logger : public nvinfer1::ILogger {
public:
    void log(Severity severity, nvinfer1::AsciiChar const* message) noexcept override {
        if (severity > Severity::kERROR) return;
        const std::lock_guard<std::mutex> lock(mutex_);
        last_ = message;
    }

    std::string take() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return last_.empty() ? "it gives no reason" : std::exchange(last_, "");
    }

private:
    std::mutex mutex_;
    std::string last_;
};

Logger& logger() {
    static Logger logger;
    return logger;
}

Shape to_shape(const nvinfer1::Dims& dims) {
    Shape shape;
    for (int i = 0; i < dims.nbDims; ++i) shape.push_back(dims.d[i]);
    return shape;
}

nvinfer1::Dims to_dims(const Shape& shape) {
    nvinfer1::Dims dims{};
    dims.nbDims = static_cast<int>(shape.size());
    for (std::size_t i = 0; i < shape.size(); ++i) dims.d[i] = shape[i];
    return dims;
}

std::string dtype_name(nvinfer1::DataType type) {
    switch (type) {
        case nvinfer1::DataType::kFLOAT: return "float32";
        case nvinfer1::DataType::kHALF: return "float16";
        default: return "of type " + std::to_string(static_cast<int>(type));
    }
}

bool same_axes(const std::vector<Axis>& found, const std::vector<Axis>& wanted) {
    bool same = found.size() == wanted.size();
    for (std::size_t i = 0; same && i < found.size(); ++i) {
        const auto* size = std::get_if<std::int64_t>(&wanted[i]);
        const auto* have = std::get_if<std::int64_t>(&found[i]);
        same = size == nullptr ? have == nullptr : have != nullptr && *size == *have;
    }
    return same;
}

// Smallest and largest shape of an input.
struct Range {
    Shape least, most;

    bool holds(const Shape& shape) const {
        bool inside = shape.size() == least.size();
        for (std::size_t i = 0; inside && i < shape.size(); ++i) inside = least[i] <= shape[i] && shape[i] <= most[i];
        return inside;
    }

    std::string told() const {
        std::string text;
        for (std::size_t i = 0; i < least.size(); ++i) {
            text += (i ? ", " : "") + std::to_string(least[i]);
            if (least[i] != most[i]) text += " to " + std::to_string(most[i]);
        }
        return "(" + text + ")";
    }
};

}  // namespace

const char* library() { return STVSR_LIBRARY; }

std::string local_target(int device) {
    int count = 0;
    check(cudaGetDeviceCount(&count), "find a device");
    if (device < 0 || device >= count) {
        throw BackendError("There is no CUDA device " + std::to_string(device) + " among " + std::to_string(count) +
                           ": choose another.");
    }
    int major = 0, minor = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "ask for a compute capability");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "ask for a compute capability");
    return "sm" + std::to_string(major) + std::to_string(minor);
}

struct Session::Impl {
    Graph graph;
    std::string path;  // of the engine's file
    std::unique_ptr<nvinfer1::IRuntime> runtime;
    std::unique_ptr<nvinfer1::ICudaEngine> engine;
    std::unique_ptr<nvinfer1::IExecutionContext> context;
    std::map<std::string, Range> ranges;

    void check_tensors();
    void check_tensor(const TensorSpec& spec, nvinfer1::TensorIOMode mode) const;
    void check_inputs(const std::map<std::string, Shape>& shapes) const;
    [[noreturn]] void refuse(const std::string& what) const;
};

Session::Session(const Bundle& bundle, const std::string& role, const std::string& precision, int device)
    : impl_(std::make_unique<Impl>()) {
    const Engine& engine = bundle.engine(role, library(), precision, local_target(device));
    impl_->graph = bundle.graph(role);
    impl_->path = bundle.path(engine.file);
    const std::string bytes = bundle.read(engine);
    check(cudaSetDevice(device), "use device " + std::to_string(device));
    impl_->runtime.reset(nvinfer1::createInferRuntime(logger()));
    if (!impl_->runtime) {
        throw BackendError(std::string(library()) + " cannot start (" + logger().take() + "): check the driver.");
    }
    impl_->engine.reset(impl_->runtime->deserializeCudaEngine(bytes.data(), bytes.size()));
    if (!impl_->engine) {
        throw BackendError(impl_->path + " cannot be loaded (" + logger().take() + "): it was built by " +
                           engine.library + " " + engine.version +
                           ", so use that version or compile the bundle again.");
    }
    impl_->check_tensors();
    impl_->context.reset(impl_->engine->createExecutionContext());
    if (!impl_->context) {
        throw BackendError("The device cannot hold what " + impl_->path + " works with (" + logger().take() +
                           "): free its memory, or compile the bundle with smaller --shapes.");
    }
}

Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

const std::vector<TensorSpec>& Session::inputs() const { return impl_->graph.inputs; }
const std::vector<TensorSpec>& Session::outputs() const { return impl_->graph.outputs; }

void Session::Impl::refuse(const std::string& what) const {
    throw BundleError("The engine " + path + " has " + what + ": compile the bundle again.");
}

void Session::Impl::check_tensors() {
    for (const TensorSpec& spec : graph.inputs) {
        check_tensor(spec, nvinfer1::TensorIOMode::kINPUT);
        const char* name = spec.name.c_str();
        ranges[spec.name] = {to_shape(engine->getProfileShape(name, 0, nvinfer1::OptProfileSelector::kMIN)),
                             to_shape(engine->getProfileShape(name, 0, nvinfer1::OptProfileSelector::kMAX))};
    }
    for (const TensorSpec& spec : graph.outputs) check_tensor(spec, nvinfer1::TensorIOMode::kOUTPUT);
    const auto count = static_cast<std::int32_t>(graph.inputs.size() + graph.outputs.size());
    if (engine->getNbIOTensors() != count) {
        refuse(std::to_string(engine->getNbIOTensors()) + " inputs and outputs, and the manifest names " +
               std::to_string(count));
    }
}

void Session::Impl::check_tensor(const TensorSpec& spec, nvinfer1::TensorIOMode mode) const {
    const char* name = spec.name.c_str();
    const std::string side = mode == nvinfer1::TensorIOMode::kINPUT ? "input " : "output ";
    if (engine->getTensorIOMode(name) != mode) refuse("no " + side + told(spec) + ", which the manifest names");
    TensorSpec found{spec.name, dtype_name(engine->getTensorDataType(name)), {}};
    for (const std::int64_t size : to_shape(engine->getTensorShape(name))) {
        found.axes.push_back(size < 0 ? Axis("?") : Axis(size));
    }
    if (spec.dtype != "float32" || found.dtype != spec.dtype || !same_axes(found.axes, spec.axes)) {
        refuse("the " + side + told(found) + ", and the manifest says " + told(spec) + " of float32");
    }
}

void Session::Impl::check_inputs(const std::map<std::string, Shape>& shapes) const {
    for (const TensorSpec& spec : graph.inputs) {
        const auto given = shapes.find(spec.name);
        if (given == shapes.end()) {
            throw RequestError("The input " + told(spec) + " of " + path + " is missing: give every input.");
        }
        if (const Range& range = ranges.at(spec.name); !range.holds(given->second)) {
            throw RequestError(path + " takes '" + spec.name + "' of " + range.told() + ", and not of " +
                               told(given->second) + ": give other sizes, or compile the bundle with --shapes that" +
                               " hold these.");
        }
    }
    if (shapes.size() > graph.inputs.size()) {
        throw RequestError(std::to_string(shapes.size()) + " inputs were given to " + path + ", which takes " +
                           std::to_string(graph.inputs.size()) + ": leave out the others.");
    }
}

std::map<std::string, Shape> Session::output_shapes(const std::map<std::string, Shape>& inputs) const {
    impl_->check_inputs(inputs);
    const auto sizes = axis_sizes(impl_->graph.inputs, inputs);
    std::map<std::string, Shape> shapes;
    for (const TensorSpec& spec : impl_->graph.outputs) shapes[spec.name] = shape_of(spec, sizes);
    return shapes;
}

void Session::run(const std::map<std::string, Tensor>& inputs, const std::map<std::string, Tensor>& outputs,
                  CUstream_st* stream) {
    nvinfer1::IExecutionContext& context = *impl_->context;
    const auto failed = [this]() -> BackendError {
        return BackendError("The engine " + impl_->path + " cannot run (" + logger().take() +
                            "): compile the bundle again.");
    };
    std::map<std::string, Shape> shapes;
    for (const auto& [name, tensor] : inputs) shapes[name] = tensor.shape;
    const auto expected = output_shapes(shapes);
    for (const auto& [name, tensor] : inputs) {
        if (!context.setInputShape(name.c_str(), to_dims(tensor.shape))) throw failed();
        if (!context.setTensorAddress(name.c_str(), tensor.data)) throw failed();
    }
    for (const auto& [name, shape] : expected) {
        const auto given = outputs.find(name);
        if (given == outputs.end() || given->second.shape != shape) {
            throw RequestError("The output '" + name + "' of " + impl_->path + " is " + told(shape) +
                               ": give memory of that shape.");
        }
        if (const Shape made = to_shape(context.getTensorShape(name.c_str())); made != shape) {
            impl_->refuse("the output '" + name + "' of " + told(made) + ", and the manifest says " + told(shape));
        }
        if (!context.setTensorAddress(name.c_str(), given->second.data)) throw failed();
    }
    if (!context.enqueueV3(stream)) throw failed();
}

}  // namespace stvsr
