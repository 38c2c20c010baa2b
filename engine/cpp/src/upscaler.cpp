#include "stvsr/upscaler.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "staging.hpp"
#include "stvsr/session.hpp"

namespace stvsr {
namespace {

constexpr std::size_t QUEUED_FRAMES = 2;  // outputs of a pair left to the device while the host converts earlier ones

}  // namespace

struct Upscaler::Impl {
    Bundle bundle;
    Options options;
    cudaStream_t stream = nullptr;
    std::map<std::string, Session> sessions;
    DeviceFrames device_frames;
    OutputQueue output_queue;
    std::map<std::string, DeviceBuffer> buffers;  // of tensors, by their names

    // Of the current call to `frames`.
    Size padded_size, output_size;
    Size computed_size;  // of the engine's output: `output_size`, or the upscaled `padded_size`
    std::string decoder;  // role of the graph that decodes a pair
    std::int64_t rows = 0, columns = 0;  // that the decoder's inputs `y` and `x` hold
    const Sink* sink = nullptr;

    ~Impl() {
        if (stream == nullptr) return;
        cudaStreamSynchronize(stream);  // the device may still read the buffers that are freed next
        if (options.stream == nullptr) cudaStreamDestroy(stream);
    }

    const Manifest& manifest() const { return bundle.manifest; }
    void begin(Size input_size, Size requested_size, const Sink& frame_sink);
    Tensor tensor(const std::string& name, const Shape& shape);
    void upload(const std::string& name, const std::vector<float>& values);
    Tensor window_tensor(const std::vector<std::int64_t>& numbers);
    Tensor time_tensor(PendingOutput& output, double time);
    std::map<std::string, Tensor> run(const std::string& role, const std::map<std::string, Tensor>& inputs);
    void download(PendingOutput& output, const Tensor& from, std::int64_t index, std::size_t copies);
    void run_pair(const WindowFrames& window);
    void run_network(const WindowFrames& window);
    std::int64_t output_index(const Output& output) const;
    void drain(std::size_t limit) { output_queue.drain(limit, *sink); }
};

Upscaler::Upscaler(Bundle bundle, const Options& options) {
    if (!bundle.manifest.flows.empty()) {
        throw RequestError("Bundle '" + bundle.manifest.name +
                           "' takes optical flow, which the C++ upscaler does not compute: use another bundle, or pass"
                           " your own flows to a Session.");
    }
    if (bundle.manifest.window.coarse != 0) {
        throw RequestError("The frames of bundle '" + bundle.manifest.name +
                           "' are back-projected, which the C++ upscaler does not do: use another bundle, or the command"
                           " stvsr upscale.");
    }
    local_target(options.device);  // throws if there is no such device
    check(cudaSetDevice(options.device), "use device " + std::to_string(options.device));
    impl_ = std::make_unique<Impl>();
    impl_->bundle = std::move(bundle);
    impl_->options = options;
    for (const Graph& graph : impl_->manifest().graphs) {
        impl_->sessions.emplace(graph.role, Session(impl_->bundle, graph.role, options.precision, options.device));
    }
    impl_->stream = options.stream;
    if (options.stream == nullptr) {
        check(cudaStreamCreateWithFlags(&impl_->stream, cudaStreamNonBlocking), "create a stream");
    }
}

Upscaler::~Upscaler() = default;
Upscaler::Upscaler(Upscaler&&) noexcept = default;
Upscaler& Upscaler::operator=(Upscaler&&) noexcept = default;

void Upscaler::frames(const Source& source, Size input_size, Size output_size, const Sink& sink) {
    check_size(impl_->manifest(), input_size, output_size);
    impl_->begin(input_size, output_size, sink);
    const bool pair = impl_->manifest().window.kind == Window::Kind::pair;
    WindowSplitter splitter(impl_->manifest().window);
    for (InputFrame frame; source(frame);) {
        check_times(impl_->manifest(), frame.times);
        impl_->device_frames.upload(frame.rgb, impl_->stream);
        for (const WindowFrames& window : splitter.push(frame.times, frame.last)) {
            if (window.outputs.empty()) continue;
            pair ? impl_->run_pair(window) : impl_->run_network(window);
        }
        impl_->device_frames.release_before(splitter.oldest());
    }
    impl_->drain(0);
}

void Upscaler::Impl::begin(Size input_size, Size requested_size, const Sink& frame_sink) {
    check(cudaSetDevice(options.device), "use device " + std::to_string(options.device));
    check(cudaStreamSynchronize(stream), "finish earlier work");  // of a call that an error ended
    sink = &frame_sink;
    output_size = requested_size;
    padded_size = {manifest().size.padded(input_size.height), manifest().size.padded(input_size.width)};
    if (manifest().window.kind == Window::Kind::pair) {
        const bool integer = sessions.count("integer_decoder") != 0 && output_size.height % input_size.height == 0 &&
                             output_size.width % input_size.width == 0;
        decoder = integer ? "integer_decoder" : "decoder";
        // The integer decoder takes the phases of target pixels in one input pixel, and renders the padding too.
        const Size covered = integer ? Size{1, 1} : input_size;
        rows = output_size.height * covered.height / input_size.height;
        columns = output_size.width * covered.width / input_size.width;
        computed_size = integer ? Size{padded_size.height * rows, padded_size.width * columns} : output_size;
        upload("y", positions(covered.height, rows));
        upload("x", positions(covered.width, columns));
    } else {
        computed_size = {output_size.height * padded_size.height / input_size.height,
                         output_size.width * padded_size.width / input_size.width};
    }
    device_frames.reset(input_size, padded_size, manifest().value_range);
    output_queue.reset(computed_size, output_size, manifest().value_range);
}

// Return a tensor in the buffer of this name, which is reused.
Tensor Upscaler::Impl::tensor(const std::string& name, const Shape& shape) {
    return {buffers[name].reserve(count(shape)), shape};
}

// Upload a one-dimensional tensor and wait for it.
void Upscaler::Impl::upload(const std::string& name, const std::vector<float>& values) {
    PinnedBuffer pinned;
    std::copy(values.begin(), values.end(), pinned.reserve(values.size()));
    copy(buffers[name].reserve(values.size()), pinned.data(), values.size(), cudaMemcpyHostToDevice, stream);
    check(cudaStreamSynchronize(stream), "upload pixel positions");
}

// Return the frames of a window in one tensor, (1, N, 3, h', w').
Tensor Upscaler::Impl::window_tensor(const std::vector<std::int64_t>& numbers) {
    const auto frames = static_cast<std::int64_t>(numbers.size());
    const Tensor tensor = this->tensor("frames", {1, frames, 3, padded_size.height, padded_size.width});
    device_frames.copy_to(tensor.data, numbers, stream);
    return tensor;
}

// Return the input `time`; its value stays in the pending output until the device has read it.
Tensor Upscaler::Impl::time_tensor(PendingOutput& output, double time) {
    *output.time.reserve(1) = static_cast<float>(time);
    const Tensor tensor = this->tensor("time", {1});
    copy(tensor.data, output.time.data(), 1, cudaMemcpyHostToDevice, stream);
    return tensor;
}

// Run a session. Its outputs stay on the device until the next run of the same session.
std::map<std::string, Tensor> Upscaler::Impl::run(const std::string& role,
                                                  const std::map<std::string, Tensor>& inputs) {
    Session& session = sessions.at(role);
    std::map<std::string, Shape> shapes;
    for (const auto& [name, tensor] : inputs) shapes[name] = tensor.shape;
    std::map<std::string, Tensor> outputs;
    for (const auto& [name, shape] : session.output_shapes(shapes)) outputs[name] = tensor(role + " " + name, shape);
    session.run(inputs, outputs, stream);
    return outputs;
}

// Enqueue the download of one frame of a tensor, (1, 3, H', W') or (1, M, 3, H', W').
void Upscaler::Impl::download(PendingOutput& output, const Tensor& from, std::int64_t index, std::size_t copies) {
    Shape frame = from.shape;
    std::int64_t frames = 1;
    if (frame.size() == 5) {
        frames = frame[1];
        frame.erase(frame.begin() + 1);
    }
    if (frame != Shape{1, 3, computed_size.height, computed_size.width} || index >= frames) {
        throw BundleError("Bundle '" + manifest().name + "' computes a tensor of shape " + to_string(from.shape) +
                          " from frames of " + to_string(padded_size) +
                          ", which does not contain the expected frame of " + to_string(computed_size) +
                          ": export and compile it again.");
    }
    output.copies = copies;
    const std::size_t values = count(frame);
    const float* pixels = from.data + static_cast<std::size_t>(index) * values;
    copy(output.pixels.reserve(values), pixels, values, cudaMemcpyDeviceToHost, stream);
    output.ready.record(stream);
}

// Encode the pair, and decode it once for each of the times.
void Upscaler::Impl::run_pair(const WindowFrames& window) {
    const Tensor frames = window_tensor(window.frames);
    const std::map<std::string, Tensor> features = run("encoder", {{"frames", frames}});
    for (std::size_t i = 0; i < window.outputs.size();) {
        const Output& requested = window.outputs[i];
        std::size_t next = i;
        while (next < window.outputs.size() && window.outputs[next] == requested) ++next;
        PendingOutput& output = output_queue.acquire();
        const double time = requested.time_in_window();
        if (decoder == "integer_decoder" && rows == 1 && columns == 1 && (time == 0 || time == 1)) {
            download(output, frames, static_cast<std::int64_t>(time), next - i);  // an input frame passes through
        } else {
            std::map<std::string, Tensor> inputs = features;
            inputs["time"] = time_tensor(output, time);
            if (sessions.count("refiner") != 0) inputs = run("refiner", inputs);
            inputs["y"] = tensor("y", {rows});
            inputs["x"] = tensor("x", {columns});
            download(output, run(decoder, inputs).at("frame"), 0, next - i);
        }
        output_queue.push(output);
        drain(QUEUED_FRAMES);
        i = next;
    }
}

// Compute a window's outputs with one graph: in one run for each time if the graph takes a time, else in a single run.
void Upscaler::Impl::run_network(const WindowFrames& window) {
    std::vector<std::pair<Output, std::size_t>> requests;  // each output once, and the number of its copies
    for (const Output& output : window.outputs) {
        if (!requests.empty() && requests.back().first == output) {
            ++requests.back().second;
        } else {
            requests.emplace_back(output, 1);
        }
    }
    const bool timed = std::holds_alternative<ContinuousTime>(manifest().time);
    std::vector<double> times;
    for (const auto& [output, copies] : requests) {
        const double time = output.time.value();
        if (timed && time > 0 && std::find(times.begin(), times.end(), time) == times.end()) times.push_back(time);
    }
    if (times.empty()) times.push_back(0.5);
    std::map<std::string, Tensor> inputs = {{"frames", window_tensor(window.frames)}};
    std::vector<PendingOutput*> pending(requests.size());
    for (std::size_t run_number = 0; run_number < times.size(); ++run_number) {
        std::optional<Tensor> upscaled;
        for (std::size_t i = 0; i < requests.size(); ++i) {
            const auto& [output, copies] = requests[i];
            const double time = output.time.value();
            // Every run also computes the frames at the input frames' own times: those are taken from the first run.
            if (timed && (time > 0 ? time != times[run_number] : run_number > 0)) continue;
            pending[i] = &output_queue.acquire();
            if (!upscaled) {
                if (timed) inputs["time"] = time_tensor(*pending[i], times[run_number]);
                upscaled = run("network", inputs).at("upscaled");
            }
            download(*pending[i], *upscaled, output_index(output), copies);
        }
    }
    for (PendingOutput* output : pending) output_queue.push(*output);
    drain(requests.size());  // converts the outputs of the window before while the device computes these
}

// Return the index of an output among the frames of the graph's output tensor.
std::int64_t Upscaler::Impl::output_index(const Output& output) const {
    switch (manifest().window.kind) {
        case Window::Kind::sliding: return 0;
        case Window::Kind::doubled:
            return 2 * output.index + static_cast<std::int64_t>(std::nearbyint(2 * output.time.value()));
        default: return 2 * output.index + (output.time.numerator > 0 ? 1 : 0);
    }
}

}  // namespace stvsr
