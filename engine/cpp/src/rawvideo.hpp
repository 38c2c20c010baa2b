#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "errors.hpp"
#include "request.hpp"

// Packed RGB frames of 8 bits ("rgb24") or of 16, the low byte first ("rgb48le"), as FFmpeg's rawvideo has them.
namespace stvsr {

// Packed frames on standard input.
class Reader {
public:
    Reader(const std::string& format, Size size)
        : wide_(format == "rgb48le"),
          pixels_(static_cast<std::size_t>(size.height * size.width)),
          bytes_(pixels_ * (wide_ ? 6 : 3)) {}

    // Fill (3, h, w) in [0, 1]; false at the end.
    bool read(std::vector<float>& rgb) {
        const std::size_t got = std::fread(bytes_.data(), 1, bytes_.size(), stdin);
        if (std::ferror(stdin)) throw MediaError("Standard input cannot be read: see where it comes from.");
        if (got == 0) return false;
        if (got < bytes_.size()) {
            throw MediaError("Standard input ends " + std::to_string(got) + " bytes into frame " +
                             std::to_string(frames) + ", and a frame takes " + std::to_string(bytes_.size()) +
                             ": give whole frames of the --size and --format that were named.");
        }
        rgb.resize(3 * pixels_);
        const float step = static_cast<float>(1.0 / (wide_ ? 65535 : 255));
        for (std::size_t i = 0; i < rgb.size(); ++i) {
            const unsigned value = wide_ ? bytes_[2 * i] | unsigned{bytes_[2 * i + 1]} << 8 : bytes_[i];
            rgb[i % 3 * pixels_ + i / 3] = std::min(static_cast<float>(value) * step, 1.0F);
        }
        ++frames;
        return true;
    }

    std::int64_t frames = 0;  // so far

private:
    bool wide_;
    std::size_t pixels_;
    std::vector<unsigned char> bytes_;
};

// Packed frames on standard output.
class Writer {
public:
    explicit Writer(const std::string& format) : wide_(format == "rgb48le") {}

    void write(const std::vector<std::uint16_t>& rgb) {  // (3, H, W)
        const std::size_t pixels = rgb.size() / 3;
        bytes_.resize(rgb.size() * (wide_ ? 2 : 1));
        for (std::size_t i = 0; i < rgb.size(); ++i) {
            const std::uint16_t value = rgb[i % 3 * pixels + i / 3];
            if (wide_) {
                bytes_[2 * i] = static_cast<unsigned char>(value & 0xFF);
                bytes_[2 * i + 1] = static_cast<unsigned char>(value >> 8);
            } else {
                bytes_[i] = static_cast<unsigned char>(std::nearbyint(static_cast<float>(value) * NARROW));
            }
        }
        if (std::fwrite(bytes_.data(), 1, bytes_.size(), stdout) < bytes_.size()) fail();
        ++frames;
    }

    void close() {
        if (std::fflush(stdout) != 0) fail();
    }

    std::int64_t frames = 0;  // so far

private:
    static constexpr float NARROW = static_cast<float>(255.0 / 65535.0);

    [[noreturn]] static void fail() {
        throw MediaError("Standard output takes no more: make room where it goes, and begin anew.");
    }

    bool wide_;
    std::vector<unsigned char> bytes_;
};

}  // namespace stvsr
