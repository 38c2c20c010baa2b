// stvsr-upscale: reads raw RGB frames from standard input and writes upscaled ones to standard output.

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
#include <utility>
#include <vector>

#include "rawvideo.hpp"
#include "stvsr/request.hpp"
#include "stvsr/session.hpp"
#include "stvsr/upscaler.hpp"

namespace stvsr {
namespace {

const char* const USAGE =
    "stvsr-upscale BUNDLE --size 320x180 [options] < in.raw > out.raw\n"
    "\n"
    "  --size WxH        size of the input frames in pixels\n"
    "  --format FORMAT   pixel format of input and output, as in FFmpeg's rawvideo: rgb24 (default) or rgb48le\n"
    "  --scale S         scale in space (default: 4 or less if the bundle takes any, else its largest)\n"
    "  --factor K        output frames for each input frame (default: 2, or 1 if the bundle adds no frames)\n"
    "  --precision P     precision of the engines: fp32 (default), tf32 or fp16\n"
    "  --device N        index of the GPU (default: 0)\n"
    "  --verbose         print the number of frames and the speed on standard error\n"
    "  --help            print this text\n";

constexpr std::int64_t MAX_VALUE = 1 << 16;  // of a width, height, scale or factor: products fit in 64 bits

struct Arguments {
    std::string bundle, format = "rgb24", precision = "fp32";
    Size size;
    std::optional<double> scale;
    std::optional<std::int64_t> factor;
    int device = 0;
    bool verbose = false, help = false;
};

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

RequestError invalid_value(std::string_view option, std::string_view value, const char* expected) {
    return RequestError("Invalid value '" + std::string(value) + "' for " + std::string(option) + ": expected " +
                        expected + ".");
}

Size parse_size(std::string_view option, std::string_view text) {
    const auto cross = std::min(text.find('x'), text.size());
    const auto width = parse_number<std::int64_t>(text.substr(0, cross));
    const auto height = parse_number<std::int64_t>(text.substr(std::min(cross + 1, text.size())));
    const auto valid = [](const auto& px) { return px && *px > 0 && *px <= MAX_VALUE; };
    if (!valid(width) || !valid(height)) throw invalid_value(option, text, "a width and a height such as 320x180");
    return {*height, *width};
}

Arguments parse_arguments(const std::vector<std::string>& words) {
    Arguments arguments;
    for (std::size_t i = 0; i < words.size(); ++i) {
        const std::string& option = words[i];
        const auto value = [&]() -> const std::string& {
            if (i + 1 == words.size()) throw RequestError("The option " + option + " needs a value.");
            return words[++i];
        };
        if (option == "--help") {
            arguments.help = true;
        } else if (option == "--verbose") {
            arguments.verbose = true;
        } else if (option == "--size") {
            arguments.size = parse_size(option, value());
        } else if (option == "--format") {
            arguments.format = value();
            if (arguments.format != "rgb24" && arguments.format != "rgb48le") {
                throw invalid_value(option, arguments.format, "rgb24 or rgb48le");
            }
        } else if (option == "--precision") {
            arguments.precision = value();
            if (arguments.precision != "fp32" && arguments.precision != "tf32" && arguments.precision != "fp16") {
                throw invalid_value(option, arguments.precision, "fp32, tf32 or fp16");
            }
        } else if (option == "--scale") {
            arguments.scale = parse_number<double>(value());
            if (!arguments.scale || !(*arguments.scale > 0) || *arguments.scale > static_cast<double>(MAX_VALUE)) {
                throw invalid_value(option, words[i], "a number above 0, and at most 65536");
            }
        } else if (option == "--factor") {
            arguments.factor = parse_number<std::int64_t>(value());
            if (!arguments.factor || *arguments.factor < 1 || *arguments.factor > MAX_VALUE) {
                throw invalid_value(option, words[i], "an integer from 1 to 65536");
            }
        } else if (option == "--device") {
            const auto device = parse_number<int>(value());
            if (!device || *device < 0) throw invalid_value(option, words[i], "the index of a GPU, from 0");
            arguments.device = *device;
        } else if (option.rfind("--", 0) == 0) {
            throw RequestError("Unknown option " + option + ": see stvsr-upscale --help.");
        } else if (arguments.bundle.empty()) {
            arguments.bundle = option;
        } else {
            throw RequestError("Unexpected argument '" + option + "' after the bundle '" + arguments.bundle +
                               "': pass one bundle.");
        }
    }
    if (arguments.help) return arguments;
    if (arguments.bundle.empty()) throw RequestError("The argument BUNDLE is missing: see stvsr-upscale --help.");
    if (arguments.size.width == 0) throw RequestError("The option --size is missing: see stvsr-upscale --help.");
    return arguments;
}

void upscale(const Arguments& arguments) {
    Bundle bundle = Bundle::load(arguments.bundle);
    const Manifest& manifest = bundle.manifest;
    const double scale = arguments.scale.value_or(default_scale(manifest));
    const std::int64_t factor = arguments.factor.value_or(default_factor(manifest));
    // A doubled sequence has no frames at the times of the input frames, so they cannot be returned alone.
    if (manifest.window.kind == Window::Kind::doubled && factor == 1) {
        throw RequestError("Bundle '" + manifest.name + "' doubles the frame rate: use --factor 2, or another bundle.");
    }
    const auto scaled = [scale](std::int64_t px) {
        return static_cast<std::int64_t>(std::nearbyint(static_cast<double>(px) * scale));
    };
    const Size size{scaled(arguments.size.height), scaled(arguments.size.width)};
    check_size(manifest, arguments.size, size);
    std::vector<Fraction> times;
    for (std::int64_t i = 0; i < factor; ++i) times.push_back({i, factor});
    check_times(manifest, times);

    Upscaler upscaler(std::move(bundle), {arguments.precision, arguments.device, nullptr});
    RawVideoReader reader(arguments.format, arguments.size);
    RawVideoWriter writer(arguments.format);
    std::vector<float> next;  // read ahead, to know which frame is the last
    bool more = reader.read(next);
    if (!more) throw MediaError("Standard input is empty: check the command that writes to it.");
    const auto source = [&](InputFrame& frame) {
        if (!more) return false;
        frame.rgb.swap(next);
        frame.times = times;
        more = reader.read(next);
        frame.last = !more;
        return true;
    };
    const auto start = std::chrono::steady_clock::now();
    upscaler.frames(source, arguments.size, size, [&](const auto& frame) { writer.write(frame); });
    writer.close();
    if (arguments.verbose) {
        const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
        std::fprintf(stderr, "%lld frames to %lld frames of %lldx%lld with %s on device %d: %.2f ms per output frame\n",
                     static_cast<long long>(reader.frames), static_cast<long long>(writer.frames),
                     static_cast<long long>(size.width), static_cast<long long>(size.height), library(),
                     arguments.device, elapsed.count() / static_cast<double>(writer.frames));
    }
}

// Return a text with the characters that control a terminal shown as escapes.
std::string plain(const std::string& text) {
    std::string shown;
    for (std::size_t i = 0; i < text.size(); ++i) {
        auto byte = static_cast<unsigned char>(text[i]);
        // In UTF-8 the controls U+0080 to U+009F have two bytes.
        const bool is_c1 = byte == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) - 0x80u < 0x20u;
        if (byte >= 0x20 && byte != 0x7F && !is_c1) {
            shown += text[i];
            continue;
        }
        if (is_c1) byte = static_cast<unsigned char>(text[++i]);
        char escape[5];
        std::snprintf(escape, sizeof escape, "\\x%02x", static_cast<unsigned>(byte));
        shown += escape;
    }
    return shown;
}

}  // namespace
}  // namespace stvsr

int main(int argc, char** argv) {
    try {
        const stvsr::Arguments arguments = stvsr::parse_arguments({argv + 1, argv + argc});
        if (arguments.help) {
            std::fputs(stvsr::USAGE, stdout);
        } else {
            stvsr::upscale(arguments);
        }
        return 0;
    } catch (const stvsr::Error& error) {
        std::fprintf(stderr, "%s\n", stvsr::plain(error.what()).c_str());
    } catch (const std::bad_alloc&) {
        std::fputs("Not enough memory for frames of this size: use smaller frames.\n", stderr);
    }
    return 1;
}
