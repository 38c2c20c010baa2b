// Codes of YUV 4:2:0 from RGB. Chroma samples lie at every second luma column and half-way between two luma rows.
//
// SAMPLE_BYTES: 1 or 2.
#pragma once

#if SAMPLE_BYTES == 1
using Sample = unsigned char;
#else
using Sample = unsigned short;
#endif

// The planes of a picture, and the conversion to their codes: the matrix, row by row, then one offset for each row.
//
// Chroma has a step (samples from column to column): 1 in planes of its own, 2 where blue and red alternate; `red` then
// starts one sample after `blue`. A sample is its code shifted left by `shift` bits; `top` is the largest code.
struct Yuv420 {
    Sample *luma, *blue, *red;
    float matrix[3][3], offset[3];
    int height, width, chroma_step, shift, top;

    __device__ __forceinline__ Sample sample(int row, const float (&rgb)[3]) const {
        const float code = matrix[row][0] * rgb[0] + matrix[row][1] * rgb[1] + matrix[row][2] * rgb[2] + offset[row];
        const float limited = fminf(fmaxf(rintf(code), 0.f), static_cast<float>(top));
        return static_cast<Sample>(static_cast<unsigned>(limited) << shift);
    }

    // Moves to another picture of a batch.
    __device__ __forceinline__ void skip(size_t pictures) {
        const size_t chroma = static_cast<size_t>((height + 1) / 2) * ((width + 1) / 2) * chroma_step;
        luma += pictures * height * width, blue += pictures * chroma, red += pictures * chroma;
    }

    __device__ __forceinline__ Sample* luma_at(int y, int x) const { return luma + static_cast<size_t>(y) * width + x; }

    // rgb: that of the chroma sample, 1/4, 1/2 and 1/4 of three columns of luma, and 1/2 of two rows.
    __device__ __forceinline__ void store_chroma(int row, int column, const float (&rgb)[3]) const {
        const size_t at = (static_cast<size_t>(row) * ((width + 1) / 2) + column) * chroma_step;
        blue[at] = sample(1, rgb);
        red[at] = sample(2, rgb);
    }
};

// The parameters of a kernel that make a `Yuv420`.
#define YUV420_PARAMETERS                                                                                            \
    Sample *__restrict__ luma, Sample *blue, Sample *red, float m00, float m01, float m02, float m10, float m11,     \
        float m12, float m20, float m21, float m22, float o0, float o1, float o2, int target_height,                 \
        int target_width, int chroma_step, int red_start, int shift, int top
#define YUV420                                                                                                       \
    Yuv420 {                                                                                                         \
        luma, blue, red + red_start, {{m00, m01, m02}, {m10, m11, m12}, {m20, m21, m22}}, {o0, o1, o2},              \
            target_height, target_width, chroma_step, shift, top                                                     \
    }

static __device__ __forceinline__ float clipped(float value) { return fminf(fmaxf(value, 0.f), 1.f); }
