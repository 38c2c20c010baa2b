// A host with its own memory and its own stream. It reads float32 values from standard input and writes its outputs to
// standard output.
//
// host session BUNDLE NAME=1x3x3x8x8 ...     Run the network on tensors, which standard input contains in this order;
//                                            then run it with an output of the wrong shape.
// host upscale BUNDLE WxH WxH TIMES ...      Upscale one frame for each TIMES, such as 0/1,1/2 or - (no output); a ! at
//                                            the end of TIMES ends the scene. One upscaler does this twice, and in
//                                            between it gets a frame that is too small.

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include <stvsr/session.hpp>
#include <stvsr/upscaler.hpp>

using namespace stvsr;

std::vector<std::int64_t> parse_numbers(std::string text) {
    for (char& c : text) c = c >= '0' && c <= '9' ? c : ' ';
    std::istringstream words(text);
    std::vector<std::int64_t> numbers;
    for (std::int64_t number; words >> number;) numbers.push_back(number);
    return numbers;
}

std::size_t count_values(const Shape& shape) {
    std::size_t count = 1;
    for (const std::int64_t size : shape) count *= static_cast<std::size_t>(size);
    return count;
}

std::vector<float> read_values(const Shape& shape) {
    std::vector<float> values(count_values(shape));
    if (std::fread(values.data(), sizeof(float), values.size(), stdin) != values.size()) std::abort();
    return values;
}

float* allocate_pinned(std::size_t count) {
    void* memory = nullptr;
    cudaMallocHost(&memory, count * sizeof(float));
    return static_cast<float*>(memory);
}

void run_session(const Bundle& bundle, const std::vector<std::string>& words, cudaStream_t stream) {
    Session opened(bundle, "network");
    Session session = std::move(opened);
    std::vector<float*> device, host;
    const auto allocate = [&](std::size_t count) {
        void* memory = nullptr;
        cudaMalloc(&memory, count * sizeof(float));
        device.push_back(static_cast<float*>(memory));
        host.push_back(allocate_pinned(count));
    };
    std::map<std::string, Tensor> inputs, outputs;
    std::map<std::string, Shape> shapes;
    for (const std::string& word : words) {
        const std::string name = word.substr(0, word.find('='));
        shapes[name] = parse_numbers(word.substr(word.find('=')));
        const std::vector<float> values = read_values(shapes[name]);
        allocate(values.size());
        std::copy(values.begin(), values.end(), host.back());
        cudaMemcpyAsync(device.back(), host.back(), values.size() * sizeof(float), cudaMemcpyHostToDevice, stream);
        inputs[name] = {device.back(), shapes[name]};
    }
    for (const auto& [name, shape] : session.output_shapes(shapes)) {
        const std::size_t count = count_values(shape);
        allocate(count);
        outputs[name] = {device.back(), shape};
        session.run(inputs, outputs, stream);
        cudaMemcpyAsync(host.back(), device.back(), count * sizeof(float), cudaMemcpyDeviceToHost, stream);
        cudaStreamSynchronize(stream);
        std::fwrite(host.back(), sizeof(float), count, stdout);
        outputs[name].shape.back() += 1;  // the next run must refuse it
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
    const auto from = parse_numbers(words[0]), to = parse_numbers(words[1]);
    std::vector<InputFrame> frames;
    for (std::size_t i = 2; i < words.size(); ++i) {
        InputFrame frame{read_values({3, from[1], from[0]}), {}, words[i].back() == '!'};
        const auto parts = parse_numbers(words[i]);
        for (std::size_t j = 0; j + 1 < parts.size(); j += 2) frame.times.push_back({parts[j], parts[j + 1]});
        frames.push_back(frame);
    }
    Upscaler::Options options;
    options.stream = stream;
    Upscaler opened(bundle, options);
    Upscaler upscaler = std::move(opened);
    const Size input_size{from[1], from[0]}, output_size{to[1], to[0]};
    for (const bool valid : {true, false, true}) {
        std::size_t next = 0;
        const auto source = [&](InputFrame& frame) {
            if (next == frames.size()) return false;
            frame = frames[next++];
            if (!valid && next == frames.size()) frame.rgb.pop_back();
            return true;
        };
        try {
            upscaler.frames(source, input_size, output_size, [&](const std::vector<std::uint16_t>& frame) {
                if (valid) std::fwrite(frame.data(), 2, frame.size(), stdout);
            });
        } catch (const RequestError& error) {
            std::fprintf(stderr, "%s\n", error.what());
        }
    }
}

int main(int argc, char** argv) {
    cudaStream_t stream = nullptr;
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    int status = 0;
    try {
        const Bundle bundle = Bundle::load(argv[2]);
        const std::vector<std::string> words(argv + 3, argv + argc);
        if (argv[1] == std::string("session")) {
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
