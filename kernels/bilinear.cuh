// Bilinear reading of a plane of pixels. Positions are in pixels, with 0 at the centre of the first pixel.
#pragma once

// Four pixels inside of a plane, as row * width + column, and their weights.
struct Corners {
    int offset[4];
    float weight[4];
};

// Returns the corners of a position. Outside of the plane all is zero, or, if clamped, its edge is repeated. NaN reads
// zero, or, if clamped, the first row or column. `scale` multiplies the value that is read.
__device__ __forceinline__ Corners find_corners(float y, float x, int height, int width, bool clamped, float scale) {
    if (clamped) {
        y = fminf(fmaxf(y, 0.0f), height - 1.0f);
        x = fminf(fmaxf(x, 0.0f), width - 1.0f);
    }
    if (!(y > -1.0f && y < height && x > -1.0f && x < width)) y = x = scale = 0.0f;
    const float y_floor = floorf(y), x_floor = floorf(x);
    const int top = static_cast<int>(y_floor), left = static_cast<int>(x_floor);
    const float y_share = y - y_floor, x_share = x - x_floor;
    const float top_weight = top < 0 ? 0.0f : (1.0f - y_share) * scale;
    const float bottom_weight = top + 1 < height ? y_share * scale : 0.0f;
    const float left_weight = left < 0 ? 0.0f : 1.0f - x_share;
    const float right_weight = left + 1 < width ? x_share : 0.0f;
    const int top_row = max(top, 0) * width, bottom_row = min(top + 1, height - 1) * width;
    const int left_column = max(left, 0), right_column = min(left + 1, width - 1);
    return {{top_row + left_column, top_row + right_column, bottom_row + left_column, bottom_row + right_column},
            {top_weight * left_weight, top_weight * right_weight, bottom_weight * left_weight,
             bottom_weight * right_weight}};
}

template <typename V>
__device__ __forceinline__ float read_corners(const V* __restrict__ plane, const Corners& corners) {
    float sum = corners.weight[0] * static_cast<float>(plane[corners.offset[0]]);
    sum += corners.weight[1] * static_cast<float>(plane[corners.offset[1]]);
    sum += corners.weight[2] * static_cast<float>(plane[corners.offset[2]]);
    return sum + corners.weight[3] * static_cast<float>(plane[corners.offset[3]]);
}
