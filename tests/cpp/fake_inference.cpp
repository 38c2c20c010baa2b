// An inference library on the CPU. Its engines are text files with one statement a line:
//   input NAME TYPE sizes... min sizes... max sizes...     a size of -1 is free; TYPE is float or half
//   output NAME TYPE sizes...
//   compute KIND SCALE       identity, blend, bilinear, phases, sliding, run, doubled or flow, as in tests/support/toy_windows.py
// An engine with "compute fail" cannot run, and one with "compute refuse" gets no execution context.

#include <NvInferRuntime.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "fake_cuda.h"

namespace {

using namespace nvinfer1;
using Sizes = std::vector<int64_t>;

struct Array {
    float* data = nullptr;
    Sizes sizes;

    int64_t count() const {
        int64_t values = 1;
        for (const int64_t size : sizes) values *= size;
        return values;
    }
};

struct Spec {
    TensorIOMode mode = TensorIOMode::kNONE;
    DataType type = DataType::kFLOAT;
    Sizes sizes, minimum, maximum;
};

struct Plan {
    std::map<std::string, Spec> tensors;
    std::string kind;
    int64_t scale = 1;
};

Dims to_dims(const Sizes& sizes) {
    Dims dims{};
    dims.nbDims = static_cast<int32_t>(sizes.size());
    std::copy(sizes.begin(), sizes.end(), dims.d);
    return dims;
}

Sizes read_sizes(std::istringstream& line) {
    Sizes sizes;
    for (std::string word; line >> word && word != "min" && word != "max";) sizes.push_back(std::stoll(word));
    return sizes;
}

bool read_plan(const std::string& text, Plan& plan) {
    std::istringstream lines(text);
    for (std::string row; std::getline(lines, row);) {
        std::istringstream line(row);
        std::string keyword, name, type;
        line >> keyword >> name;
        if (keyword == "compute") {
            plan.kind = name;
            line >> plan.scale;
        } else if (keyword == "input" || keyword == "output") {
            line >> type;
            Spec& spec = plan.tensors[name];
            spec.mode = keyword == "input" ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
            spec.type = type == "half" ? DataType::kHALF : DataType::kFLOAT;
            spec.sizes = read_sizes(line);
            spec.minimum = read_sizes(line);
            spec.maximum = read_sizes(line);
        } else {
            return false;
        }
    }
    return !plan.kind.empty();
}

// Add to each pixel an eighth of its right neighbour and a sixteenth of the one below; both wrap around the edges.
std::vector<float> mix(const Array& frames) {
    const int64_t w = frames.sizes.back(), h = frames.sizes[frames.sizes.size() - 2], planes = frames.count() / (h * w);
    std::vector<float> mixed;
    for (int64_t p = 0; p < planes; ++p) {
        const float* plane = frames.data + p * h * w;
        for (int64_t y = 0; y < h; ++y) {
            for (int64_t x = 0; x < w; ++x) {
                const float right = plane[y * w + (x + 1) % w] * 0.125F, below = plane[(y + 1) % h * w + x] * 0.0625F;
                mixed.push_back(plane[y * w + x] + right + below);
            }
        }
    }
    return mixed;
}

// Write a frame, (planes, h, w), to position `index` of the output, with each pixel repeated `scale` times in both
// directions.
void enlarge(const std::vector<float>& frame, int64_t h, int64_t w, int64_t scale, float* to, int64_t index) {
    const int64_t planes = static_cast<int64_t>(frame.size()) / (h * w);
    to += index * planes * h * w * scale * scale;
    for (int64_t p = 0; p < planes; ++p) {
        for (int64_t y = 0; y < h * scale; ++y) {
            for (int64_t x = 0; x < w * scale; ++x) {
                *to++ = frame[static_cast<std::size_t>((p * h + y / scale) * w + x / scale)];
            }
        }
    }
}

// The blend of a pair, (3, h, w): computed here, or by a refiner before.
std::vector<float> blended(std::map<std::string, Array>& t) {
    if (t.count("features") == 0) return {t["blended"].data, t["blended"].data + t["blended"].count()};
    const Array& features = t["features"];
    const float time = t["time"].data[0];
    const int64_t values = features.count() / 2;
    std::vector<float> blend;
    for (int64_t i = 0; i < values; ++i) {
        const float first = features.data[i], second = features.data[values + i];
        blend.push_back(first + (second - first) * time);
    }
    return blend;
}

// Rows and columns of the maps that a decoder reads.
std::pair<int64_t, int64_t> map_size(const std::map<std::string, Array>& t) {
    const Sizes& sizes = t.at(t.count("features") ? "features" : "blended").sizes;
    return {sizes[sizes.size() - 2], sizes.back()};
}

void bilinear(std::map<std::string, Array>& t) {
    const Array &ys = t["y"], &xs = t["x"];
    const auto [h, w] = map_size(t);
    const std::vector<float> blend = blended(t);
    const auto split = [](float position, int64_t size) {
        const float clamped = std::min(std::max(position, 0.0F), static_cast<float>(size - 1));
        return std::pair(static_cast<int64_t>(std::floor(clamped)), clamped - std::floor(clamped));
    };
    float* to = t["frame"].data;
    for (int64_t c = 0; c < 3; ++c) {
        for (int64_t i = 0; i < ys.count(); ++i) {
            const auto [y, below] = split(ys.data[i], h);
            const auto row = [&, y = y, below = below, h = h, w = w](int64_t x) {
                const float a = blend[static_cast<std::size_t>((c * h + y) * w + x)];
                const float b = blend[static_cast<std::size_t>((c * h + std::min(y + 1, h - 1)) * w + x)];
                return a + (b - a) * below;
            };
            for (int64_t j = 0; j < xs.count(); ++j) {
                const auto [x, right] = split(xs.data[j], w);
                const float a = row(x), b = row(std::min(x + 1, w - 1));
                *to++ = a + (b - a) * right;
            }
        }
    }
}

void phases(std::map<std::string, Array>& t) {
    const Array &ys = t["y"], &xs = t["x"];
    const auto [h, w] = map_size(t);
    const std::vector<float> blend = blended(t);
    float* to = t["frame"].data;
    for (int64_t row = 0; row < 3 * h; ++row) {
        for (int64_t i = 0; i < ys.count(); ++i) {
            for (int64_t column = 0; column < w; ++column) {
                const float pixel = blend[static_cast<std::size_t>(row * w + column)];
                for (int64_t j = 0; j < xs.count(); ++j) {
                    *to++ = pixel + ys.data[i] * 0.125F + xs.data[j] * 0.0625F;
                }
            }
        }
    }
}

void compute(const Plan& plan, std::map<std::string, Array> t) {
    if (plan.kind == "bilinear") return bilinear(t);
    if (plan.kind == "phases") return phases(t);
    if (plan.kind == "blend") {
        const std::vector<float> blend = blended(t);
        std::copy(blend.begin(), blend.end(), t["blended"].data);
        return;
    }
    const Array& frames = t["frames"];
    const std::vector<float> mixed = mix(frames);
    if (plan.kind == "identity") {
        std::copy(mixed.begin(), mixed.end(), t["features"].data);
        return;
    }
    const int64_t n = frames.sizes[1], h = frames.sizes[3], w = frames.sizes[4], values = 3 * h * w;
    float* to = t["upscaled"].data;
    const auto blend = [&](int64_t first, float weight, int64_t second) {
        std::vector<float> blended;
        for (int64_t i = 0; i < values; ++i) {
            const float a = mixed[static_cast<std::size_t>(first * values + i)];
            const float b = mixed[static_cast<std::size_t>(second * values + i)];
            blended.push_back(a + (b - a) * weight);
        }
        return blended;
    };
    if (plan.kind == "run") {
        const float time = t.count("time") ? t["time"].data[0] : 0.5F;
        for (int64_t i = 0; i < 2 * n - 1; ++i) {
            enlarge(blend(i / 2, i % 2 ? time : 0.0F, std::min(i / 2 + 1, n - 1)), h, w, plan.scale, to, i);
        }
    } else if (plan.kind == "doubled") {
        for (int64_t i = 0; i < 2 * n; ++i) {
            const int64_t other = i / 2 + (i % 2 ? 1 : -1);
            enlarge(blend(i / 2, 0.25F, std::clamp<int64_t>(other, 0, n - 1)), h, w, plan.scale, to, i);
        }
    } else {  // sliding: a sum with the weights 1/16, 2/16, ...; flow: the same plus the first flow's dx
        std::vector<float> sum(static_cast<std::size_t>(values), 0.0F);
        for (int64_t f = 0; f < n; ++f) {
            for (int64_t i = 0; i < values; ++i) {
                const float weight = static_cast<float>(f + 1) * 0.0625F;
                sum[static_cast<std::size_t>(i)] += mixed[static_cast<std::size_t>(f * values + i)] * weight;
            }
        }
        if (plan.kind == "flow") {
            for (int64_t i = 0; i < values; ++i) sum[static_cast<std::size_t>(i)] += t["flow"].data[i % (h * w)];
        }
        enlarge(sum, h, w, plan.scale, to, 0);
    }
}

class Context : public IExecutionContext {
public:
    Context(const Plan& plan, ILogger& logger) : plan_(plan), logger_(logger) {}

    bool setInputShape(char const* name, Dims const& dims) noexcept override {
        arrays_[name].sizes.assign(dims.d, dims.d + dims.nbDims);
        return true;
    }

    Dims getTensorShape(char const* name) const noexcept override {
        const auto array = arrays_.find(name);
        if (array != arrays_.end() && !array->second.sizes.empty()) return to_dims(array->second.sizes);
        return to_dims(output_sizes(name));
    }

    bool setTensorAddress(char const* name, void* data) noexcept override {
        arrays_[name].data = static_cast<float*>(data);
        return plan_.tensors.count(name) > 0;
    }

    bool enqueueV3(cudaStream_t stream) noexcept override {
        if (plan_.kind == "fail") {
            logger_.log(ILogger::Severity::kERROR, "the fake fails");
            return false;
        }
        std::map<std::string, Array> bound = arrays_;
        for (auto& [name, array] : bound) {
            if (array.sizes.empty()) array.sizes = output_sizes(name);
            fake_check_device(array.data, static_cast<std::size_t>(array.count()) * sizeof(float));
        }
        fake_enqueue(stream, [plan = plan_, bound] {
            for (const auto& [name, array] : bound) {
                fake_check_device(array.data, static_cast<std::size_t>(array.count()) * sizeof(float));
            }
            compute(plan, bound);
        });
        return true;
    }

private:
    Sizes output_sizes(const std::string& name) const {
        if (plan_.kind == "identity") return arrays_.at("frames").sizes;
        if (plan_.kind == "bilinear") return {1, 3, arrays_.at("y").sizes[0], arrays_.at("x").sizes[0]};
        if (plan_.kind == "phases") {
            const auto [h, w] = map_size(arrays_);
            return {1, 3, h * arrays_.at("y").sizes[0], w * arrays_.at("x").sizes[0]};
        }
        if (plan_.kind == "blend") {
            const auto [h, w] = map_size(arrays_);
            return {1, 3, h, w};
        }
        const Sizes& frames = arrays_.at("frames").sizes;
        const int64_t n = frames[1], outputs = plan_.kind == "run" ? 2 * n - 1 : plan_.kind == "doubled" ? 2 * n : 1;
        Sizes sizes = {1, outputs, 3, frames[3] * plan_.scale, frames[4] * plan_.scale};
        return name == "upscaled" ? sizes : Sizes{};
    }

    Plan plan_;
    ILogger& logger_;
    std::map<std::string, Array> arrays_;
};

class Engine : public ICudaEngine {
public:
    Engine(Plan plan, ILogger& logger) : plan_(std::move(plan)), logger_(logger) {}

    int32_t getNbIOTensors() const noexcept override { return static_cast<int32_t>(plan_.tensors.size()); }

    TensorIOMode getTensorIOMode(char const* name) const noexcept override {
        return plan_.tensors.count(name) ? plan_.tensors.at(name).mode : TensorIOMode::kNONE;
    }

    DataType getTensorDataType(char const* name) const noexcept override { return plan_.tensors.at(name).type; }

    Dims getTensorShape(char const* name) const noexcept override { return to_dims(plan_.tensors.at(name).sizes); }

    Dims getProfileShape(char const* name, int32_t, OptProfileSelector select) const noexcept override {
        const Spec& spec = plan_.tensors.at(name);
        return to_dims(select == OptProfileSelector::kMIN ? spec.minimum : spec.maximum);
    }

    IExecutionContext* createExecutionContext() noexcept override {
        if (plan_.kind != "refuse") return new Context(plan_, logger_);
        logger_.log(ILogger::Severity::kERROR, "the fake has no memory");
        return nullptr;
    }

private:
    Plan plan_;
    ILogger& logger_;
};

class Runtime : public IRuntime {
public:
    explicit Runtime(ILogger& logger) : logger_(logger) {}

    ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept override {
        logger_.log(ILogger::Severity::kINFO, "the fake reads an engine");
        Plan plan;
        if (read_plan(std::string(static_cast<const char*>(blob), size), plan)) return new Engine(plan, logger_);
        logger_.log(ILogger::Severity::kERROR, "the fake cannot parse the engine");
        return nullptr;
    }

private:
    ILogger& logger_;
};

}  // namespace

extern "C" void* createInferRuntime_INTERNAL(void* logger, int32_t) noexcept {
    auto& library_logger = *static_cast<nvinfer1::ILogger*>(logger);
    if (std::getenv("FAKE_INFERENCE_REFUSES") == nullptr) return new Runtime(library_logger);
    library_logger.log(nvinfer1::ILogger::Severity::kERROR, "the fake does not start");
    return nullptr;
}
