"""TensorRT's plugins: our kernels as nodes of a network, whose PTX lies in the engine's file.

They are ahead-of-time Python plugins (`tensorrt.plugin`) of the namespace "stvsr": Python describes and compiles them
while an engine is built, and whoever runs the engine needs neither Python nor a library of ours. TensorRT-RTX takes no
plugins. `to_plugins` puts them into a graph; a host that builds a network itself adds any with
`network.add_plugin(tensorrt.plugin.op.stvsr.warp(features, flows, border="zeros", align_corners=True,
grid_limit=0.0))`. A `GridSample` stays one: TensorRT has it, and no warp is guessed from the arithmetic before it.

Written against the Python source of TensorRT 11.4, which the tests run over a stand-in for its compiled module: shapes,
launch parameters, arguments and PTX are tested. What has not run yet is TensorRT itself: its parser's lookup of the
nodes, its choice among types, and the launch from an engine.
"""

import importlib
import inspect
import math
from collections.abc import Mapping
from dataclasses import asdict
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from .....kernels.deform_conv import DeformConv
from ....contract.errors import BackendError
from ...cuda_driver import local_target
from ..builder import load_library
from ..lowering import GraphWriter, check_stored, copied, import_onnx
from .decoder import decoder_to_plugins, is_implicit_decoder
from .kernels import FEATURES, NAMESPACE, PLUGINS, Plugin
from .ptx import compile_ptx, find_compiler

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def to_plugins(model: "ModelProto", config: Mapping[str, Any] | None = None) -> "ModelProto":
    """Replace every `DeformConv`, and VideoINR's decoder as a whole, by plugins, which have to be registered.

    The decoder needs the `config` of its manifest's architecture, and stays as it is without. Weights stay in their
    shape under their name: the order in which a kernel reads them is taken in the graph. Raises what `lower` raises.
    """
    if config is not None and is_implicit_decoder(model):
        return decoder_to_plugins(model, config)
    onnx = import_onnx()
    changed = copied(model)
    graph = changed.graph
    shapes = {initializer.name: tuple(initializer.dims) for initializer in graph.initializer}
    writer = GraphWriter(graph)
    typed = {value.name for value in (*graph.value_info, *graph.output)}
    for node in model.graph.node:
        if node.op_type != "DeformConv":
            writer.nodes.append(node)
            continue
        channels = _deform_conv(writer, node, shapes)
        if node.output[0] not in typed:  # no inference knows the plugin
            shape = (None, channels, None, None)
            value = onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, shape)
            graph.value_info.append(value)
    writer.finish()
    if any(node.domain == NAMESPACE for node in graph.node):
        changed.opset_import.append(onnx.helper.make_opsetid(NAMESPACE, 1))
    return changed


def register_plugins() -> None:
    """Make the plugins known to TensorRT, once in a process.

    Raises BackendError where TensorRT, its Python plugins or a compiler of kernels are missing.
    """
    trt = load_library("tensorrt")
    try:
        api = importlib.import_module("tensorrt.plugin")
    except ImportError as error:
        raise BackendError(
            f'TensorRT has no Python plugins ({error}): pip install --upgrade "stvsr[tensorrt]", or compile without'
            " plugins."
        ) from error
    if not hasattr(api, "aot_impl") or not hasattr(api, "KernelLaunchParams"):
        raise BackendError(
            f"TensorRT {trt.__version__} has no ahead-of-time plugins: pip install --upgrade tensorrt, or compile"
            " without plugins."
        )
    find_compiler()  # before TensorRT calls for it, which tells less
    for plugin in PLUGINS.values():
        if not hasattr(getattr(api.op, NAMESPACE, None), plugin.name):
            _register(trt, api, plugin)


def _deform_conv(writer: GraphWriter, node: "NodeProto", shapes: dict[str, tuple[int, ...]]) -> int:
    """Write one `DeformConv` as a plugin's node and return its channels."""
    onnx = import_onnx()
    constant = writer.constant
    x, weight, offset, bias, mask = (*node.input, "", "")[:5]
    check_stored(node, shapes)
    given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    out_channels, group_channels, *kernel = shapes[weight]
    groups, offset_groups = given.get("group", 1), given.get("offset_group", 1)
    conv = DeformConv(
        in_channels=group_channels * groups,
        out_channels=out_channels,
        kernel=(kernel[0], kernel[1]),
        stride=tuple(given.get("strides", (1, 1))),
        padding=tuple(given.get("pads", (0, 0, 0, 0))[:2]),  # the offset's shape says how much there is behind
        dilation=tuple(given.get("dilations", (1, 1))),
        groups=groups,
        offset_groups=offset_groups,
    )
    # Which element, counted from 1, is at each place of the packed weight; 0 is none, where there is a zero.
    count = math.prod(shapes[weight])
    places = conv.pack(np.arange(1, count + 1, dtype=np.float64).reshape(shapes[weight]))
    elements = writer("Concat", constant((0,), np.float32), writer("Reshape", weight, constant((-1,))), axis=0)
    packed = writer("Gather", elements, constant(places), axis=0)
    if not mask:
        batch, size = writer("Shape", offset, start=0, end=1), writer("Shape", offset, start=2, end=4)
        shape = writer("Concat", batch, constant((offset_groups * conv.taps,)), size, axis=0)
        ones = onnx.numpy_helper.from_array(np.ones(1, np.float32))
        mask = writer("ConstantOfShape", shape, value=ones)
    bias = bias or constant(np.zeros(out_channels), np.float32)
    names = {"domain": NAMESPACE, "plugin_namespace": NAMESPACE, "plugin_version": "1"}
    writer("deform_conv2d", x, packed, offset, mask, bias, output=node.output[0], **names, **asdict(conv))
    return out_channels


def _register(trt: ModuleType, api: ModuleType, plugin: Plugin) -> None:
    count = len(plugin.inputs)

    def described(*tensors: Any, **attributes: Any) -> Any:
        dtype = tensors[0].dtype if plugin.output[1] == FEATURES else trt.DataType.FLOAT
        shape = plugin.shape([tensor.shape_expr for tensor in tensors], attributes)
        return api.from_shape_expr(tuple(shape), dtype)

    def tuned(*_: Any) -> Any:
        return [api.AutoTuneCombination(plugin.types, "LINEAR")]

    def implemented(*arguments: Any) -> Any:
        tensors, values = arguments[:count], arguments[count:-2]
        attributes = dict(zip(plugin.attributes, values, strict=True))
        dtype = np.dtype(trt.nptype(tensors[0].dtype))
        kernel = plugin.kernel([tensor.shape_expr for tensor in tensors], attributes, dtype)
        launch = api.KernelLaunchParams(*kernel.launch.grid, *kernel.launch.block, kernel.launch.shared_bytes)
        integers = api.SymIntExprs.from_tuple([api.SymInt32(value) for value in kernel.integers])
        return kernel.entry.function, compile_ptx(kernel.entry, _target()), launch, integers

    # TensorRT reads names and types of the arguments off the functions' signatures.
    tensors = dict.fromkeys(plugin.inputs, api.TensorDesc)
    outputs = {"outputs": tuple.__class_getitem__(api.TensorDesc)}
    compiled = tuple.__class_getitem__((str, str, api.KernelLaunchParams, api.SymIntExprs))
    _sign(described, {**tensors, **plugin.attributes}, api.TensorDesc)
    _sign(tuned, {**tensors, **outputs}, list.__class_getitem__(api.AutoTuneCombination))
    _sign(implemented, {**tensors, **plugin.attributes, **outputs, "tactic": int}, compiled)
    name = f"{NAMESPACE}::{plugin.name}"
    api.register(name)(described)
    api.autotune(name)(tuned)
    api.aot_impl(name)(implemented)


def _sign(function: Any, parameters: Mapping[str, Any], result: Any) -> None:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    made = [inspect.Parameter(name, kind, annotation=annotation) for name, annotation in parameters.items()]
    function.__signature__ = inspect.Signature(made, return_annotation=result)


def _target() -> str:
    target = local_target()
    if target is None:
        raise BackendError("Plugins are compiled for the GPU of this machine, and there is none: compile without them.")
    return target
