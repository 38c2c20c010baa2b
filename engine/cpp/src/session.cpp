#include "stvsr/session.hpp"

#include <NvInferRuntime.h>

#include <mutex>
#include <utility>

#include "device.hpp"
#include "stvsr/axes.hpp"

#ifndef STVSR_LIBRARY
#error "Define STVSR_LIBRARY as the inference library: \"tensorrt\" or \"tensorrt-rtx\""
#endif

namespace stvsr {
namespace {

// A logger that keeps the library's last error, for the message of an exception. All sessions share one, because the
// library uses the first logger that it gets for the whole process.
class Logger : public nvinfer1::ILogger {
public:
    void log(Severity severity, nvinfer1::AsciiChar const* message) noexcept override {
        if (severity > Severity::kERROR) return;
        const std::lock_guard<std::mutex> lock(mutex_);
        last_ = message;
    }

    std::string take() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return last_.empty() ? "no reason given" : std::exchange(last_, "");
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

// Return whether fixed axes have equal sizes and free axes are free in both.
bool same_axes(const std::vector<Axis>& actual, const std::vector<Axis>& expected) {
    bool same = actual.size() == expected.size();
    for (std::size_t i = 0; same && i < actual.size(); ++i) {
        const auto* actual_size = std::get_if<std::int64_t>(&actual[i]);
        const auto* expected_size = std::get_if<std::int64_t>(&expected[i]);
        same = expected_size == nullptr ? actual_size == nullptr
                                        : actual_size != nullptr && *actual_size == *expected_size;
    }
    return same;
}

// The smallest and the largest shape of an input.
struct Range {
    Shape minimum, maximum;

    bool contains(const Shape& shape) const {
        bool inside = shape.size() == minimum.size();
        for (std::size_t i = 0; inside && i < shape.size(); ++i) {
            inside = minimum[i] <= shape[i] && shape[i] <= maximum[i];
        }
        return inside;
    }

    std::string to_string() const {
        std::string text;
        for (std::size_t i = 0; i < minimum.size(); ++i) {
            text += (i ? ", " : "") + std::to_string(minimum[i]);
            if (minimum[i] != maximum[i]) text += " to " + std::to_string(maximum[i]);
        }
        return "(" + text + ")";
    }
};

}  // namespace

const char* library() { return STVSR_LIBRARY; }

std::string local_target(int device) {
    int count = 0;
    check(cudaGetDeviceCount(&count), "count the devices");
    if (device < 0 || device >= count) {
        throw BackendError("CUDA device " + std::to_string(device) + " does not exist (" + std::to_string(count) +
                           " available): choose another device.");
    }
    int major = 0, minor = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "query the compute capability");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "query the compute capability");
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
    [[noreturn]] void refuse(const std::string& problem) const;
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
        throw BackendError("Cannot load the engine " + impl_->path + " (" + logger().take() + "): it was built with " +
                           engine.library + " " + engine.version + "; use that version or compile the bundle again.");
    }
    impl_->check_tensors();
    impl_->context.reset(impl_->engine->createExecutionContext());
    if (!impl_->context) {
        throw BackendError("Cannot allocate the working memory of the engine " + impl_->path + " (" + logger().take() +
                           "): free device memory, or compile the bundle with smaller --shapes.");
    }
}

Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

const std::vector<TensorSpec>& Session::inputs() const { return impl_->graph.inputs; }
const std::vector<TensorSpec>& Session::outputs() const { return impl_->graph.outputs; }

void Session::Impl::refuse(const std::string& problem) const {
    throw BundleError("The engine " + path + " " + problem + ": compile the bundle again.");
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
        refuse("has " + std::to_string(engine->getNbIOTensors()) + " inputs and outputs, but the manifest lists " +
               std::to_string(count));
    }
}

void Session::Impl::check_tensor(const TensorSpec& spec, nvinfer1::TensorIOMode mode) const {
    const char* name = spec.name.c_str();
    const std::string side = mode == nvinfer1::TensorIOMode::kINPUT ? "input " : "output ";
    if (engine->getTensorIOMode(name) != mode) {
        refuse("has no " + side + to_string(spec) + ", which the manifest lists");
    }
    TensorSpec actual{spec.name, dtype_name(engine->getTensorDataType(name)), {}};
    for (const std::int64_t size : to_shape(engine->getTensorShape(name))) {
        actual.axes.push_back(size < 0 ? Axis("?") : Axis(size));
    }
    if (spec.dtype != "float32" || actual.dtype != spec.dtype || !same_axes(actual.axes, spec.axes)) {
        refuse("has the " + side + to_string(actual) + " instead of " +
               to_string(TensorSpec{spec.name, "float32", spec.axes}));
    }
}

void Session::Impl::check_inputs(const std::map<std::string, Shape>& shapes) const {
    for (const TensorSpec& spec : graph.inputs) {
        const auto input = shapes.find(spec.name);
        if (input == shapes.end()) {
            throw RequestError("The input " + to_string(spec) + " of " + path + " is missing: pass every input.");
        }
        if (const Range& range = ranges.at(spec.name); !range.contains(input->second)) {
            throw RequestError("The engine " + path + " takes '" + spec.name + "' of shape " + range.to_string() +
                               ", not " + to_string(input->second) +
                               ": use other sizes, or compile the bundle with --shapes that include them.");
        }
    }
    if (shapes.size() > graph.inputs.size()) {
        throw RequestError("The engine " + path + " takes " + std::to_string(graph.inputs.size()) + " inputs, but " +
                           std::to_string(shapes.size()) + " were passed: remove the others.");
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
        const auto output = outputs.find(name);
        if (output == outputs.end() || output->second.shape != shape) {
            throw RequestError("The output '" + name + "' of " + impl_->path + " has the shape " + to_string(shape) +
                               ": pass a tensor of that shape.");
        }
        if (const Shape actual = to_shape(context.getTensorShape(name.c_str())); actual != shape) {
            impl_->refuse("computes the output '" + name + "' of shape " + to_string(actual) + " instead of " +
                          to_string(shape));
        }
        if (!context.setTensorAddress(name.c_str(), output->second.data)) throw failed();
    }
    if (!context.enqueueV3(stream)) throw failed();
}

}  // namespace stvsr
