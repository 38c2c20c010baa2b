"""Runs the kernels of TensorRT's plugins on the CPU, as an engine launches them."""

from pathlib import Path
from typing import Any

import numpy as np
from stvsr.engine.backends.tensorrt.plugins.kernels import PLUGINS, Kernel
from stvsr.kernels.deform_conv import DeformConv

from tests.support import cuda_cpu

FIXED_TYPES = {"FP32": np.float32, "INT32": np.int32}  # types of tensors that are not features


def deform_conv_attributes(conv: DeformConv) -> dict[str, Any]:
    """Return the attributes of the plugin of a deformable convolution."""
    return {name: getattr(conv, name) for name in PLUGINS["deform_conv2d"].attributes}


def deform_conv_shapes(conv: DeformConv, batch: int, size: tuple[int, int]) -> list[tuple[int, ...]]:
    """Return the shapes of the plugin's inputs, for x of `size` (height, width), which is in strips."""
    out, maps = conv.out_size(*size), conv.offset_groups * conv.taps
    weight = np.zeros((conv.out_channels, conv.in_channels // conv.groups, *conv.kernel), np.float32)
    packed = conv.pack(weight).shape
    x = (batch, conv.strips, *size, 8)
    return [x, packed, (batch, 2 * maps, *out), (batch, maps, *out), (conv.out_channels,)]


def run_kernel(kernel: Kernel, folder: Path, inputs: list[np.ndarray], output: np.ndarray) -> np.ndarray:
    """Launch a plugin's kernel with the arguments that an engine passes, and return the output.

    The source is compiled in `folder`. The output is NaN where the kernel writes nothing.
    """
    source = folder / "plugin.cu"
    source.write_text(kernel.entry.source)
    library = cuda_cpu.compile(source, kernel.entry.defines)
    output.reshape(-1).view(np.uint8)[...] = 0xFF  # NaN
    integers = [np.int32(value) for value in kernel.integers]
    cuda_cpu.launch(library, kernel.entry.function, *kernel.launch, *inputs, *integers, output)
    return output
