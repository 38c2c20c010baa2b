// stvsr-upscale: raw RGB frames in at standard input, more and larger ones out at standard output.

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "rawvideo.hpp"
#include "request.hpp"
#include "session.hpp"
#include "upscaler.hpp"

namespace stvsr {
namespace {

const char* const USAGE =
    "stvsr-upscale BUNDLE --size 320x180 [options] < in.raw > out.raw\n"
    "\n"
    "  --size WxH        of the input frames\n"
    "  --format FORMAT   of the frames that come in and go out, packed as FFmpeg's rawvideo: rgb24 (default), rgb48le\n"
    "  --scale S         in space; default x4, or what the bundle can\n"
    "  --factor K        in time: K frames come out for each that goes in; default x2, or what the bundle can\n"
    "  --precision P     of the engines: fp32 (default), fp16\n"
    "  --device N        the GPU's number; default 0\n"
    "  --verbose         say on standard error how many frames were made, and how fast\n";

constexpr std::int64_t LARGEST_PX = 1 << 16;

struct Request {
    std::string bundle, format = "rgb24", precision = "fp32";
    Size size;
    std::optional<double> scale;
    std::optional<std::int64_t> factor;
    int device = 0;
    bool verbose = false, help = false;
};

template <class Number>
std::optional<Number> number(std::string_view text) {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

RequestError unfit(std::string_view option, std::string_view value, const char* wanted) {
    return RequestError("'" + std::string(value) + "' does not suit " + std::string(option) + ": give " + wanted + ".");
}

Size parse_size(std::string_view option, std::string_view text) {
    const auto cross = std::min(text.find('x'), text.size());
    const auto width = number<std::int64_t>(text.substr(0, cross));
    const auto height = number<std::int64_t>(text.substr(std::min(cross + 1, text.size())));
    const auto good = [](const auto& px) { return px && *px > 0 && *px <= LARGEST_PX; };
    if (!good(width) || !good(height)) throw unfit(option, text, "a width and a height, such as 320x180");
    return {*height, *width};
}

Request parse(const std::vector<std::string>& arguments) {
    Request request;
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        const std::string& option = arguments[i];
        const auto value = [&]() -> const std::string& {
            if (i + 1 == arguments.size()) throw RequestError("The option " + option + " has no value: give one.");
            return arguments[++i];
        };
        if (option == "--help") {
            request.help = true;
        } else if (option == "--verbose") {
            request.verbose = true;
        } else if (option == "--size") {
            request.size = parse_size(option, value());
        } else if (option == "--format") {
            request.format = value();
            if (request.format != "rgb24" && request.format != "rgb48le") {
                throw unfit(option, request.format, "rgb24 or rgb48le");
            }
        } else if (option == "--precision") {
            request.precision = value();
            if (request.precision != "fp32" && request.precision != "fp16") {
                throw unfit(option, request.precision, "fp32 or fp16");
            }
        } else if (option == "--scale") {
            request.scale = number<double>(value());
            if (!request.scale || !(*request.scale > 0) || *request.scale > static_cast<double>(LARGEST_PX)) {
                throw unfit(option, arguments[i], "a number above 0");
            }
        } else if (option == "--factor") {
            request.factor = number<std::int64_t>(value());
            if (!request.factor || *request.factor < 1 || *request.factor > LARGEST_PX) {
                throw unfit(option, arguments[i], "a whole number from 1 on");
            }
        } else if (option == "--device") {
            const auto device = number<int>(value());
            if (!device || *device < 0) throw unfit(option, arguments[i], "a GPU's number, from 0 on");
            request.device = *device;
        } else if (option.rfind("--", 0) == 0) {
            throw RequestError("There is no option " + option + ": see stvsr-upscale --help.");
        } else if (request.bundle.empty()) {
            request.bundle = option;
        } else {
            throw RequestError("'" + option + "' comes after the bundle '" + request.bundle + "': name one bundle.");
        }
    }
    if (!request.help && request.bundle.empty()) throw RequestError("No bundle is named: see stvsr-upscale --help.");
    if (!request.help && request.size.width == 0) throw RequestError("The size of the frames is missing: give --size.");
    return request;
}

void upscale(const Request& request) {
    Bundle bundle = Bundle::load(request.bundle);
    const Manifest& manifest = bundle.manifest;
    const double scale = request.scale.value_or(default_scale(manifest));
    const std::int64_t factor = request.factor.value_or(default_factor(manifest));
    // The frames of a doubled sequence lie at other times than the input's.
    if (manifest.window.kind == Window::Kind::doubled && factor == 1) {
        throw RequestError("Bundle '" + manifest.name + "' doubles the frames: give --factor 2, or another bundle.");
    }
    const auto scaled = [scale](std::int64_t px) {
        return static_cast<std::int64_t>(std::nearbyint(static_cast<double>(px) * scale));
    };
    const Size size{scaled(request.size.height), scaled(request.size.width)};
    check_size(manifest, request.size, size);
    std::vector<Fraction> times;
    for (std::int64_t part = 0; part < factor; ++part) times.push_back({part, factor});
    check_times(manifest, times);

    Upscaler upscaler(std::move(bundle), {request.precision, request.device, nullptr});
    Reader reader(request.format, request.size);
    Writer writer(request.format);
    std::vector<float> held;
    bool more = reader.read(held);
    if (!more) throw MediaError("Standard input holds no frame: see what comes before.");
    const auto next = [&](InputFrame& frame) {  // a frame is the last when no other comes
        if (!more) return false;
        frame.rgb.swap(held);
        frame.times = times;
        more = reader.read(held);
        frame.last = !more;
        return true;
    };
    const auto began = std::chrono::steady_clock::now();
    upscaler.frames(next, request.size, size, [&](const auto& frame) { writer.write(frame); });
    writer.close();
    if (request.verbose) {
        const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - began;
        std::fprintf(stderr, "%lld frames of %lldx%lld made of %lld by %s on device %d: %.2f ms a frame\n",
                     static_cast<long long>(writer.frames), static_cast<long long>(size.width),
                     static_cast<long long>(size.height), static_cast<long long>(reader.frames), library(),
                     request.device, took.count() / static_cast<double>(writer.frames));
    }
}

}  // namespace
}  // namespace stvsr

int main(int count, char** arguments) {
    try {
        const stvsr::Request request = stvsr::parse({arguments + 1, arguments + count});
        if (request.help) {
            std::fputs(stvsr::USAGE, stdout);
        } else {
            stvsr::upscale(request);
        }
        return 0;
    } catch (const stvsr::Error& error) {
        std::fprintf(stderr, "%s\n", error.what());
    } catch (const std::bad_alloc&) {
        std::fputs("This machine has no memory for such frames: give smaller ones.\n", stderr);
    }
    return 1;
}
