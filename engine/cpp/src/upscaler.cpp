#include "upscaler.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "session.hpp"
#include "staging.hpp"

namespace stvsr {
namespace {

constexpr std::size_t IN_FLIGHT = 2;  // results of a pair that may wait on the device while the host turns out others

}  // namespace

struct Upscaler::Impl {
    Bundle bundle;
    Options options;
    cudaStream_t stream = nullptr;
    std::map<std::string, Session> sessions;
    HeldFrames held;
    Results results;
    std::map<std::string, DeviceMemory> tensors;

    // Of the frames under way.
    Size padded, size, made;  // the last is what an engine makes: `size`, or that of the padded frame
    const Sink* give = nullptr;

    ~Impl() {
        if (stream == nullptr) return;
        cudaStreamSynchronize(stream);  // the device may still read what goes now
        if (options.stream == nullptr) cudaStreamDestroy(stream);
    }

    const Manifest& manifest() const { return bundle.manifest; }
    void begin(Size shape, Size size, const Sink& give);
    Tensor tensor(const std::string& name, const Shape& shape);
    void send(const std::string& name, const std::vector<float>& values);
    Tensor window(const Feed& feed);
    std::map<std::string, Tensor> run(const std::string& role, const std::map<std::string, Tensor>& inputs);
    Tensor set_time(Result& result, double time);
    void download(Result& result, const Tensor& from, std::int64_t index, std::size_t wanted);
    void run_pair(const Feed& feed);
    void run_network(const Feed& feed);
    std::int64_t index(const Wanted& wanted) const;
    void deliver(std::size_t keep) { results.deliver(keep, *give); }
};

Upscaler::Upscaler(Bundle bundle, const Options& options) {
    if (!bundle.manifest.flows.empty()) {
        throw RequestError("Bundle '" + bundle.manifest.name +
                           "' takes optical flow, which is not computed here: use another bundle, or give its session"
                           " flows of your own.");
    }
    if (bundle.manifest.window.coarse > 1) {
        throw RequestError("Bundle '" + bundle.manifest.name + "' is to see frames made " +
                           std::to_string(bundle.manifest.window.coarse) +
                           " times smaller, which is not done here: use another bundle, or stvsr upscale.");
    }
    local_target(options.device);  // says so where there is no such device
    check(cudaSetDevice(options.device), "use device " + std::to_string(options.device));
    impl_ = std::make_unique<Impl>();
    impl_->bundle = std::move(bundle);
    impl_->options = options;
    for (const Graph& graph : impl_->manifest().graphs) {
        impl_->sessions.emplace(graph.role, Session(impl_->bundle, graph.role, options.precision, options.device));
    }
    impl_->stream = options.stream;
    if (options.stream == nullptr) {
        check(cudaStreamCreateWithFlags(&impl_->stream, cudaStreamNonBlocking), "make a stream");
    }
}

Upscaler::~Upscaler() = default;
Upscaler::Upscaler(Upscaler&&) noexcept = default;
Upscaler& Upscaler::operator=(Upscaler&&) noexcept = default;

void Upscaler::frames(const Source& next, Size shape, Size size, const Sink& give) {
    check_size(impl_->manifest(), shape, size);
    impl_->begin(shape, size, give);
    const bool pair = impl_->manifest().window.kind == Window::Kind::pair;
    Windows windows(impl_->manifest().window);
    for (InputFrame frame; next(frame);) {
        check_times(impl_->manifest(), frame.times);
        impl_->held.upload(frame.rgb, impl_->stream);
        for (const Feed& feed : windows.push(frame.times, frame.last)) {
            if (feed.wanted.empty()) continue;
            pair ? impl_->run_pair(feed) : impl_->run_network(feed);
        }
        impl_->held.forget(windows.oldest());
    }
    impl_->deliver(0);
}

void Upscaler::Impl::begin(Size shape, Size size_px, const Sink& sink) {
    check(cudaSetDevice(options.device), "use device " + std::to_string(options.device));
    check(cudaStreamSynchronize(stream), "finish the work before");  // of a call that an error ended
    const bool pair = manifest().window.kind == Window::Kind::pair;
    size = size_px;
    padded = {manifest().size.padded(shape.height), manifest().size.padded(shape.width)};
    made = {size.height * padded.height / shape.height, size.width * padded.width / shape.width};
    give = &sink;
    if (pair) {
        made = size;
        send("y", positions(shape.height, size.height));
        send("x", positions(shape.width, size.width));
    }
    held.begin(shape, padded, manifest().value_range);
    results.begin(made, size, manifest().value_range);
}

// A tensor of the upscaler's own, in memory that it keeps.
Tensor Upscaler::Impl::tensor(const std::string& name, const Shape& of) {
    return {tensors[name].reserve(count(of)), of};
}

// Put values on the device and wait until they are there.
void Upscaler::Impl::send(const std::string& name, const std::vector<float>& values) {
    PinnedMemory pinned;
    std::copy(values.begin(), values.end(), pinned.reserve(values.size()));
    copy(tensors[name].reserve(values.size()), pinned.data(), values.size(), cudaMemcpyHostToDevice, stream);
    check(cudaStreamSynchronize(stream), "copy positions");
}

// The frames of a window in one tensor, (1, N, 3, h', w').
Tensor Upscaler::Impl::window(const Feed& feed) {
    const auto frames = static_cast<std::int64_t>(feed.frames.size());
    const Tensor tensor = this->tensor("frames", {1, frames, 3, padded.height, padded.width});
    held.copy_to(tensor.data, feed.frames, stream);
    return tensor;
}

// Run a session; its results stay on the device until the next run of the same one.
std::map<std::string, Tensor> Upscaler::Impl::run(const std::string& role,
                                                  const std::map<std::string, Tensor>& inputs) {
    Session& session = sessions.at(role);
    std::map<std::string, Shape> shapes;
    for (const auto& [name, tensor] : inputs) shapes[name] = tensor.shape;
    std::map<std::string, Tensor> outputs;
    for (const auto& [name, of] : session.output_shapes(shapes)) outputs[name] = tensor(role + " " + name, of);
    session.run(inputs, outputs, stream);
    return outputs;
}

// The input `time`; the result keeps the value until the device has taken it.
Tensor Upscaler::Impl::set_time(Result& result, double time) {
    *result.time.reserve(1) = static_cast<float>(time);
    const Tensor tensor = this->tensor("time", {1});
    copy(tensor.data, result.time.data(), 1, cudaMemcpyHostToDevice, stream);
    return tensor;
}

void Upscaler::Impl::download(Result& result, const Tensor& from, std::int64_t index, std::size_t wanted) {
    Shape one = from.shape;  // (1, 3, H', W'), or of several (1, M, 3, H', W')
    const std::int64_t several = one.size() == 5 ? one[1] : 1;
    if (one.size() == 5) one.erase(one.begin() + 1);
    if (one != Shape{1, 3, made.height, made.width} || index >= several) {
        throw BundleError("Bundle '" + manifest().name + "' gives " + stvsr::told(from.shape) + " of frames of " +
                          told(padded) + ", which holds no " + told(made) + ": export and compile it again.");
    }
    result.wanted = wanted;
    const std::size_t values = count(one);
    const float* pixels = from.data + static_cast<std::size_t>(index) * values;
    copy(result.pixels.reserve(values), pixels, values, cudaMemcpyDeviceToHost, stream);
    result.ready.record(stream);
}

// Encode the pair, and decode each time.
void Upscaler::Impl::run_pair(const Feed& feed) {
    std::map<std::string, Tensor> inputs = run("encoder", {{"frames", window(feed)}});
    inputs["y"] = tensor("y", {size.height});
    inputs["x"] = tensor("x", {size.width});
    for (std::size_t i = 0; i < feed.wanted.size();) {
        const double time = feed.wanted[i].time.after(feed.wanted[i].place);
        std::size_t same = i;
        while (same < feed.wanted.size() && feed.wanted[same] == feed.wanted[i]) ++same;
        Result& decoded = results.take();
        inputs["time"] = set_time(decoded, time);
        download(decoded, run("decoder", inputs).at("frame"), 0, same - i);
        results.wait(decoded);
        deliver(IN_FLIGHT);
        i = same;
    }
}

// Make a window's results by one graph: one run for each time that it takes, or a single one.
void Upscaler::Impl::run_network(const Feed& feed) {
    std::vector<std::pair<Wanted, std::size_t>> all;  // each result, and how often it is wanted
    for (const Wanted& wanted : feed.wanted) {
        if (!all.empty() && all.back().first == wanted) {
            ++all.back().second;
        } else {
            all.emplace_back(wanted, 1);
        }
    }
    const bool timed = std::holds_alternative<ContinuousTime>(manifest().time);
    std::vector<double> moments;
    for (const auto& [wanted, often] : all) {
        const double time = wanted.time.after(0);
        if (timed && time > 0 && std::find(moments.begin(), moments.end(), time) == moments.end()) {
            moments.push_back(time);
        }
    }
    if (moments.empty()) moments.push_back(0.5);
    std::map<std::string, Tensor> inputs = {{"frames", window(feed)}};
    std::vector<Result*> made_by_now(all.size());
    for (std::size_t moment = 0; moment < moments.size(); ++moment) {
        std::optional<Tensor> upscaled;
        for (std::size_t i = 0; i < all.size(); ++i) {
            const double time = all[i].first.time.after(0);
            // The input frames' own times come with every run: they are taken from the first.
            if (timed && (time > 0 ? time != moments[moment] : moment > 0)) continue;
            Result& one = *(made_by_now[i] = &results.take());
            if (!upscaled) {
                if (timed) inputs["time"] = set_time(one, moments[moment]);
                upscaled = run("network", inputs).at("upscaled");
            }
            download(one, *upscaled, index(all[i].first), all[i].second);
        }
    }
    for (Result* one : made_by_now) results.wait(*one);
    deliver(all.size());  // those of the window before; these while the next one is on its way
}

// Which frame of a graph's result it is.
std::int64_t Upscaler::Impl::index(const Wanted& wanted) const {
    switch (manifest().window.kind) {
        case Window::Kind::sliding: return 0;
        case Window::Kind::doubled:
            return 2 * wanted.place + static_cast<std::int64_t>(std::nearbyint(2 * wanted.time.after(0)));
        default: return 2 * wanted.place + (wanted.time.numerator > 0 ? 1 : 0);
    }
}

}  // namespace stvsr
