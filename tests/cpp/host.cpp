// A host with memory and a stream of its own, float32 in at standard input and results out at standard output.
//
// host session BUNDLE NAME=1x3x3x8x8 ...     runs the network on tensors, in that order at standard input
// host upscale BUNDLE WxH WxH TIMES ...      upscales frames, one for each TIMES, as 0/1,1/2 or -; with a ! its scene
//                                            ends. It does so twice with one upscaler, and in between tries a frame
//                                            that is too small.

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "session.hpp"
#include "upscaler.hpp"

using namespace stvsr;

std::vector<std::int64_t> numbers(std::string text) {
    for (char& c : text) c = c >= '0' && c <= '9' ? c : ' ';
    std::istringstream words(text);
    std::vector<std::int64_t> found;
    for (std::int64_t number; words >> number;) found.push_back(number);
    return found;
}

std::vector<float> values(const Shape& shape) {
    std::size_t count = 1;
    for (const std::int64_t size : shape) count *= static_cast<std::size_t>(size);
    std::vector<float> read(count);
    if (std::fread(read.data(), sizeof(float), count, stdin) != count) std::abort();
    return read;
}

float* pinned(std::size_t count) {
    void* memory = nullptr;
    cudaMallocHost(&memory, count * sizeof(float));
    return static_cast<float*>(memory);
}

void run_session(const Bundle& bundle, const std::vector<std::string>& tensors, cudaStream_t stream) {
    Session opened(bundle, "network");
    Session session = std::move(opened);
    std::vector<float*> device, host;
    const auto allocate = [&](std::size_t count) {
        void* memory = nullptr;
        cudaMalloc(&memory, count * sizeof(float));
        device.push_back(static_cast<float*>(memory));
        host.push_back(pinned(count));
    };
    std::map<std::string, Tensor> inputs, outputs;
    std::map<std::string, Shape> shapes;
    for (const std::string& told : tensors) {
        const std::string name = told.substr(0, told.find('='));
        shapes[name] = numbers(told.substr(told.find('=')));
        const std::vector<float> given = values(shapes[name]);
        allocate(given.size());
        std::copy(given.begin(), given.end(), host.back());
        cudaMemcpyAsync(device.back(), host.back(), given.size() * sizeof(float), cudaMemcpyHostToDevice, stream);
        inputs[name] = {device.back(), shapes[name]};
    }
    for (const auto& [name, shape] : session.output_shapes(shapes)) {
        std::size_t count = 1;
        for (const std::int64_t size : shape) count *= static_cast<std::size_t>(size);
        allocate(count);
        outputs[name] = {device.back(), shape};
        session.run(inputs, outputs, stream);
        cudaMemcpyAsync(host.back(), device.back(), count * sizeof(float), cudaMemcpyDeviceToHost, stream);
        cudaStreamSynchronize(stream);
        std::fwrite(host.back(), sizeof(float), count, stdout);
        outputs[name].shape.back() += 1;  // and is refused then
        try {
            session.run(inputs, outputs, stream);
        } catch (const RequestError& error) {
            std::fprintf(stderr, "%s\n", error.what());
        }
    }
    for (float* memory : device) cudaFree(memory);
    for (float* memory : host) cudaFreeHost(memory);
}

void run_upscaler(const Bundle& bundle, const std::vector<std::string>& words, cudaStream_t stream) {
    const auto from = numbers(words[0]), to = numbers(words[1]);
    std::vector<InputFrame> frames;
    for (std::size_t i = 2; i < words.size(); ++i) {
        InputFrame frame{values({3, from[1], from[0]}), {}, words[i].back() == '!'};
        const auto parts = numbers(words[i]);
        for (std::size_t j = 0; j + 1 < parts.size(); j += 2) frame.times.push_back({parts[j], parts[j + 1]});
        frames.push_back(frame);
    }
    Upscaler::Options options;
    options.stream = stream;
    Upscaler opened(bundle, options);
    Upscaler upscaler = std::move(opened);
    const Size shape{from[1], from[0]}, size{to[1], to[0]};
    for (const bool whole : {true, false, true}) {
        std::size_t next = 0;
        const auto source = [&](InputFrame& frame) {
            if (next == frames.size()) return false;
            frame = frames[next++];
            if (!whole && next == frames.size()) frame.rgb.pop_back();
            return true;
        };
        try {
            upscaler.frames(source, shape, size, [&](const std::vector<std::uint16_t>& frame) {
                if (whole) std::fwrite(frame.data(), 2, frame.size(), stdout);
            });
        } catch (const RequestError& error) {
            std::fprintf(stderr, "%s\n", error.what());
        }
    }
}

int main(int count, char** arguments) {
    cudaStream_t stream = nullptr;
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    int status = 0;
    try {
        const Bundle bundle = Bundle::load(arguments[2]);
        const std::vector<std::string> words(arguments + 3, arguments + count);
        if (arguments[1] == std::string("session")) {
            run_session(bundle, words, stream);
        } else {
            run_upscaler(bundle, words, stream);
        }
    } catch (const Error& error) {
        std::fprintf(stderr, "%s\n", error.what());
        status = 1;
    }
    cudaStreamDestroy(stream);
    return status;
}
