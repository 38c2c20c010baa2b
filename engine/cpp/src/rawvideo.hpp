#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "stvsr/errors.hpp"
#include "stvsr/request.hpp"

// Packed RGB frames as FFmpeg's rawvideo stores them: 8 bits ("rgb24"), or 16 bits in little-endian order ("rgb48le").
namespace stvsr {

// A reader of packed frames from standard input.
class RawVideoReader {
public:
    RawVideoReader(const std::string& format, Size size)
        : is_16_bit_(format == "rgb48le"),
          pixels_(static_cast<std::size_t>(size.height * size.width)),
          bytes_(pixels_ * (is_16_bit_ ? 6 : 3)) {}

    // Read a frame into `rgb`, (3, h, w) in [0, 1]; return false at the end of the input. Throws MediaError if the
    // input cannot be read or ends within a frame.
    bool read(std::vector<float>& rgb) {
        const std::size_t count = std::fread(bytes_.data(), 1, bytes_.size(), stdin);
        if (std::ferror(stdin)) throw MediaError("Cannot read standard input: check the command that writes to it.");
        if (count == 0) return false;
        if (count < bytes_.size()) {
            throw MediaError("Standard input ends after " + std::to_string(count) + " of the " +
                             std::to_string(bytes_.size()) + " bytes of frame " + std::to_string(frames) +
                             ": check that --size and --format describe the input.");
        }
        rgb.resize(3 * pixels_);
        const float step = static_cast<float>(1.0 / (is_16_bit_ ? 65535 : 255));
        for (std::size_t i = 0; i < rgb.size(); ++i) {
            const unsigned value = is_16_bit_ ? bytes_[2 * i] | unsigned{bytes_[2 * i + 1]} << 8 : bytes_[i];
            rgb[i % 3 * pixels_ + i / 3] = std::min(static_cast<float>(value) * step, 1.0F);
        }
        ++frames;
        return true;
    }

    std::int64_t frames = 0;  // number of frames read

private:
    bool is_16_bit_;
    std::size_t pixels_;
    std::vector<unsigned char> bytes_;
};

// A writer of packed frames to standard output.
class RawVideoWriter {
public:
    explicit RawVideoWriter(const std::string& format) : is_16_bit_(format == "rgb48le") {}

    // Write a frame (3, H, W) with white at 65535. Throws MediaError if the output cannot be written.
    void write(const std::vector<std::uint16_t>& rgb) {
        const std::size_t pixels = rgb.size() / 3;
        bytes_.resize(rgb.size() * (is_16_bit_ ? 2 : 1));
        for (std::size_t i = 0; i < rgb.size(); ++i) {
            const std::uint16_t value = rgb[i % 3 * pixels + i / 3];
            if (is_16_bit_) {
                bytes_[2 * i] = static_cast<unsigned char>(value & 0xFF);
                bytes_[2 * i + 1] = static_cast<unsigned char>(value >> 8);
            } else {
                bytes_[i] = static_cast<unsigned char>(std::nearbyint(static_cast<float>(value) * TO_8_BIT));
            }
        }
        if (std::fwrite(bytes_.data(), 1, bytes_.size(), stdout) < bytes_.size()) fail();
        ++frames;
    }

    // Flush the output. Throws MediaError if it cannot be written.
    void close() {
        if (std::fflush(stdout) != 0) fail();
    }

    std::int64_t frames = 0;  // number of frames written

private:
    static constexpr float TO_8_BIT = static_cast<float>(255.0 / 65535.0);

    [[noreturn]] static void fail() {
        throw MediaError("Cannot write to standard output: check that its destination has space, and run again.");
    }

    bool is_16_bit_;
    std::vector<unsigned char> bytes_;
};

}  // namespace stvsr
