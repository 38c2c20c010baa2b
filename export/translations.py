"""How operators of `stvsr.training` that PyTorch has no name for are written in ONNX."""

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset20 as onnx_op

from ..training.networks import ops  # noqa: F401  registers torch.ops.stvsr


def _deform_conv2d(
    x: Any,
    offset: Any,
    mask: Any,
    weight: Any,
    bias: Any,
    stride: int,
    padding: int,
    dilation: int,
    offset_groups: int,
) -> Any:
    """`DeformConv` of opset 19 and later; its kernel shape is the weight's."""
    return onnx_op.DeformConv(
        x,
        weight,
        offset,
        bias,
        mask,
        strides=[stride, stride],
        pads=[padding] * 4,
        dilations=[dilation, dilation],
        offset_group=offset_groups,
    )


def onnx_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The `custom_translation_table` that `torch.onnx.export(dynamo=True)` needs for every network of stvsr."""
    return {torch.ops.stvsr.deform_conv2d.default: _deform_conv2d}
