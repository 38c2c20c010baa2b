"""ONNX translations of the operators of `stvsr.training` that PyTorch itself does not have."""

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset20 as onnx_op

from ..training.networks import ops  # noqa: F401  registers torch.ops.stvsr


def onnx_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the `custom_translation_table` that `torch.onnx.export(dynamo=True)` needs for the networks of stvsr."""
    return {torch.ops.stvsr.deform_conv2d.default: _deform_conv2d}


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
    """Translate to `DeformConv`, opset 19 and later, whose kernel shape is that of its weight."""
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
