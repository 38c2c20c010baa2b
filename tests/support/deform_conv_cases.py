"""Models of one `DeformConv`, with every attribute of the operator."""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from tests.support.onnx_models import Arrays, make_model


@dataclass(frozen=True)
class DeformConvCase:
    """A `DeformConv`, named as in ONNX, on x of `size` (height, width); offsets have a deviation of `offset_px`."""

    size: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    dilations: tuple[int, int] = (1, 1)
    channels: tuple[int, int] = (4, 6)  # in, out
    offset_groups: int = 1
    groups: int = 1
    mask: bool = True
    bias: bool = True
    offset_px: float = 2
    opset: int = 20

    def model(self) -> tuple[onnx.ModelProto, Arrays]:
        """Return the model, with random weights as initializers, and random inputs for it."""
        rng = np.random.default_rng(abs(hash(self)) % 2**32)
        taps = self.kernel[0] * self.kernel[1]
        out = tuple(
            (n + self.pads[a] + self.pads[a + 2] - self.dilations[a] * (self.kernel[a] - 1) - 1) // self.strides[a] + 1
            for a, n in enumerate(self.size)
        )
        c_in, c_out = self.channels
        inputs = {
            "x": rng.standard_normal((2, c_in, *self.size)),
            "offset": self.offset_px * rng.standard_normal((2, 2 * self.offset_groups * taps, *out)),
        }
        constants = {"weight": rng.standard_normal((c_out, c_in // self.groups, *self.kernel)).astype(np.float32)}
        if self.mask:
            inputs["mask"] = rng.random((2, self.offset_groups * taps, *out))
        if self.bias:
            constants["bias"] = rng.standard_normal(c_out).astype(np.float32)
        names = ["x", "weight", "offset", "bias" if self.bias else "", "mask" if self.mask else ""]
        while not names[-1]:
            names.pop()
        node = helper.make_node(
            "DeformConv",
            names,
            ["y"],
            strides=self.strides,
            pads=self.pads,
            dilations=self.dilations,
            offset_group=self.offset_groups,
            group=self.groups,
        )
        inputs = {name: value.astype(np.float32) for name, value in inputs.items()}
        return make_model([node], inputs, {"y": 4}, constants, self.opset), inputs


DEFORM_CONV_CASES = [
    DeformConvCase((9, 14)),
    DeformConvCase((9, 14), mask=False, bias=False, opset=19),
    DeformConvCase((17, 8), kernel=(1, 1), pads=(0, 0, 0, 0), bias=False, opset=22),
    DeformConvCase((11, 1), kernel=(3, 1), strides=(2, 1), pads=(2, 0, 1, 3), dilations=(1, 2), opset=22),
    DeformConvCase((1, 23), mask=False),
    DeformConvCase((23, 31), kernel=(2, 5), strides=(1, 3), pads=(0, 2, 2, 0), dilations=(2, 1), opset=19),
    DeformConvCase((13, 7), offset_groups=4, groups=2, channels=(8, 6)),
    DeformConvCase((13, 7), offset_groups=2, groups=4, channels=(8, 8), opset=22),
    DeformConvCase((10, 21), offset_groups=8, channels=(8, 3), bias=False),
    DeformConvCase((15, 12), groups=6, channels=(6, 6), mask=False),
    DeformConvCase((19, 26), offset_px=1000),
    DeformConvCase((6, 320), offset_groups=8, channels=(64, 64), offset_px=30),
]
