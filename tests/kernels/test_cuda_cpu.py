"""CUDA sources on a CPU: threads, barriers and matrix products, and the errors that are detected."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests.support import cuda_cpu

PROBE = """
#include <cuda_fp16.h>
#include "matrix_unit.cuh"

extern "C" __global__ void __launch_bounds__(64, 2) reverse(const DTYPE* in, DTYPE* out) {
    extern __shared__ __align__(128) unsigned char shared_memory[];
    DTYPE* tile = reinterpret_cast<DTYPE*>(shared_memory);
    const int first = blockIdx.x * blockDim.x;
    tile[threadIdx.x] = in[first + threadIdx.x];
#ifndef WITHOUT_BARRIER
    __syncthreads();
#endif
    out[first + threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void some_wait(float* out) {
    if (threadIdx.x < 40) __syncthreads();
    out[threadIdx.x] = 1;
}

extern "C" __global__ void part_of_a_warp_waits(float* out) {
    if (threadIdx.x != 3) __syncwarp();
    out[threadIdx.x] = 1;
}

extern "C" __global__ void two_barriers(float* out) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 1;
}

extern "C" __global__ void set(float* out, int i) { out[i] = 1; }

extern "C" __global__ void get(const float* in, float* out, int i) { out[0] = in[i]; }

extern "C" __global__ void sum_of_a_warp(const float* in, float* out) {
    float sum = in[threadIdx.x];
    for (int i = 16; i; i /= 2) sum += __shfl_xor_sync(0xffffffff, sum, i);
    out[threadIdx.x] = sum;
}

extern "C" __global__ void number(int* out) {
    const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] += block * 100 + thread;
}

// a, b: (16, stride); out: (4, 16, stride), by every way to load the matrices.
extern "C" __global__ void multiply(const half* a, const half* b, float* out, int stride) {
    extern __shared__ __align__(128) unsigned char shared_memory[];
    half* left = reinterpret_cast<half*>(shared_memory);
    half* right = left + 16 * stride;
    for (int i = threadIdx.x; i < 16 * stride; i += 32) {
        left[i] = a[i];
        right[i] = b[i];
    }
    __syncthreads();
    const Left lefts[2] = {load_left(left, stride), load_left_transposed(left, stride)};
    const Right rights[2] = {load_right(b, stride), load_right_transposed(right, stride)};
    for (int i = 0; i < 4; ++i) {
        Sums sums;
        for (auto& half_sums : sums.value)
            for (float& sum : half_sums) sum = 1;
        add_product(sums, lefts[i / 2], rights[i % 2]);
        store_sums(out + i * 16 * stride, stride, sums);
    }
}

extern "C" __global__ void load(const half* a, float* out, int global) {
    extern __shared__ __align__(128) unsigned char shared_memory[];
    const half* from = global ? a : reinterpret_cast<half*>(shared_memory) + 4;
    out[threadIdx.x] = static_cast<float>(load_left(from, 16).part[0]);
}
"""


class Probe:
    """The kernels of PROBE, compiled with some defines."""

    def __init__(self, folder: Path, *defines: tuple[str, str]) -> None:
        source = folder / "probe.cu"
        source.write_text(PROBE)
        self.library = cuda_cpu.compile(source, (("DTYPE", "half"), *defines))

    def __call__(
        self, kernel: str, *arguments: Any, grid: Any = (1, 1, 1), block: Any = (64, 1, 1), shared: int = 0
    ) -> None:
        cuda_cpu.launch(self.library, kernel, grid, block, shared, *arguments)


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    return Probe(tmp_path)


def test_threads_meet_at_a_barrier(probe: Probe) -> None:
    values, out = np.arange(192, dtype=np.float16), np.zeros(192, np.float16)
    probe("reverse", values, out, grid=(3, 1, 1), shared=128)
    assert_array_equal(out.reshape(3, 64), values.reshape(3, 64)[:, ::-1])


def test_a_missing_barrier_is_detected(tmp_path: Path) -> None:
    values, out = np.arange(64, dtype=np.float16), np.zeros(64, np.float16)
    Probe(tmp_path, ("WITHOUT_BARRIER", "1"))("reverse", values, out, shared=128)
    assert np.isnan(out).any()


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("some_wait", r"40 wait at __syncthreads in line \d+, 24 of 64 have returned"),
        ("part_of_a_warp_waits", r"31 wait at a warp's barrier in line \d+, 33 of 64 have returned"),
        ("two_barriers", r"32 wait at __syncthreads in line \d+, 32 wait at __syncthreads in line \d+, 0 of 64"),
    ],
)
def test_a_barrier_that_some_threads_skip_is_an_error(probe: Probe, kernel: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        probe(kernel, np.zeros(64, np.float32))


def test_writes_beyond_the_ends_are_errors(probe: Probe) -> None:
    values, out = np.zeros(64, np.float16), np.zeros(64, np.float16)
    with pytest.raises(RuntimeError, match=r"byte 126 of shared memory was written, but the launch has 126 bytes"):
        probe("reverse", values, out, shared=126)
    for i in (-1, 64):
        with pytest.raises(RuntimeError, match=r"array 0 of shape \(64,\) was written beyond its ends"):
            probe("set", np.zeros(64, np.float32), np.int32(i), block=(1, 1, 1))


def test_reads_beyond_the_ends_are_nan(probe: Probe) -> None:
    for i in (-1, 64):
        out = np.zeros(1, np.float32)
        probe("get", np.zeros(64, np.float32), out, np.int32(i), block=(1, 1, 1))
        assert np.isnan(out).all()


def test_arguments_must_match_the_parameters_of_the_kernel(probe: Probe) -> None:
    array = np.zeros(4, np.float32)
    with pytest.raises(RuntimeError, match="argument 1 has 8 bytes, its parameter 4"):
        probe("set", array, np.int64(0))
    with pytest.raises(RuntimeError, match="the kernel takes 2 arguments, not 1"):
        probe("set", array)
    with pytest.raises(TypeError, match="not int"):
        probe("set", array, 0)


def test_every_thread_of_every_block_runs_once(probe: Probe) -> None:
    out = np.zeros((24, 30), np.int32)
    probe("number", out, grid=(2, 3, 4), block=(5, 3, 2))
    assert_array_equal(out, np.arange(24)[:, None] * 100 + np.arange(30))


def test_threads_of_a_warp_exchange_values(probe: Probe) -> None:
    values, out = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    probe("sum_of_a_warp", values, out)
    assert_array_equal(out.reshape(2, 32), values.reshape(2, 32).sum(1, keepdims=True).repeat(32, 1))


def test_a_warp_multiplies_matrices(probe: Probe) -> None:
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((16, 24)).astype(np.float16) for _ in range(2))
    out = np.zeros((4, 16, 24), np.float32)
    probe("multiply", a, b, out, np.int32(24), block=(32, 1, 1), shared=2 * 16 * 24 * 2)
    left, right = a[:, :16].astype(np.float32), b[:, :16].astype(np.float32)
    for product, (x, y) in zip(out, [(left, right), (left, right.T), (left.T, right), (left.T, right.T)], strict=True):
        assert_allclose(product[:, :16], x @ y + 1, rtol=0, atol=2e-5)
    assert_array_equal(out[..., 16:], 0)


@pytest.mark.parametrize(("outside", "message"), [(0, "not aligned to 16 bytes"), (1, "not in shared memory")])
def test_matrices_are_loaded_from_aligned_rows_in_shared_memory(probe: Probe, outside: int, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        probe(
            "load", np.zeros(256, np.float16), np.zeros(32, np.float32), np.int32(outside), block=(32, 1, 1), shared=640
        )
