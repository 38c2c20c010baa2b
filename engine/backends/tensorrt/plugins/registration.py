"""Registers the plugins with TensorRT, as ahead-of-time Python plugins (`tensorrt.plugin`) of the namespace "stvsr".

Python describes and compiles them while an engine is built; a program that runs the engine needs neither Python nor a
plugin library. A host that builds a network itself adds a plugin to it like this:

    warp = tensorrt.plugin.op.stvsr.warp(features, flows, border="zeros", align_corners=True, grid_limit=0.0)
    network.add_plugin(warp)
"""

import importlib
import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from ....contract.errors import BackendError
from ...cuda_driver import local_target
from ..library import load_library
from .kernels import FEATURES, NAMESPACE, PLUGINS, Plugin
from .ptx import compile_ptx, find_compiler


def register_plugins() -> None:
    """Register the plugins with TensorRT, once in a process.

    Raises BackendError if TensorRT, its Python plugins or a compiler of kernels is missing.
    """
    trt = load_library("tensorrt")
    try:
        api = importlib.import_module("tensorrt.plugin")
    except ImportError as error:
        raise BackendError(
            f'TensorRT has no Python plugins ({error}): pip install --upgrade "stvsr[tensorrt]", or compile without'
            " --plugins."
        ) from error
    if not hasattr(api, "aot_impl") or not hasattr(api, "KernelLaunchParams"):
        raise BackendError(
            f"TensorRT {trt.__version__} has no ahead-of-time plugins: pip install --upgrade tensorrt, or compile"
            " without --plugins."
        )
    find_compiler()  # fails here with a better message than from within TensorRT
    for plugin in PLUGINS.values():
        if not hasattr(getattr(api.op, NAMESPACE, None), plugin.name):
            _register(trt, api, plugin)


def _register(trt: ModuleType, api: ModuleType, plugin: Plugin) -> None:
    count = len(plugin.inputs)

    def describe(*tensors: Any, **attributes: Any) -> Any:
        dtype = tensors[0].dtype if plugin.output[1] == FEATURES else trt.DataType.FLOAT
        shape = plugin.shape([tensor.shape_expr for tensor in tensors], attributes)
        return api.from_shape_expr(tuple(shape), dtype)

    def autotune(*_: Any) -> Any:
        return [api.AutoTuneCombination(plugin.types, "LINEAR")]

    def implement(*arguments: Any) -> Any:
        tensors, values = arguments[:count], arguments[count:-2]  # the last two are the outputs and the tactic
        attributes = dict(zip(plugin.attributes, values, strict=True))
        dtype = np.dtype(trt.nptype(tensors[0].dtype))
        kernel = plugin.kernel([tensor.shape_expr for tensor in tensors], attributes, dtype)
        launch = api.KernelLaunchParams(*kernel.launch.grid, *kernel.launch.block, kernel.launch.shared_bytes)
        integers = api.SymIntExprs.from_tuple([api.SymInt32(value) for value in kernel.integers])
        return kernel.entry.function, compile_ptx(kernel.entry, _target()), launch, integers

    # TensorRT reads the names and types of a plugin's tensors and attributes from the signatures of the functions.
    tensors = dict.fromkeys(plugin.inputs, api.TensorDesc)
    outputs = {"outputs": tuple.__class_getitem__(api.TensorDesc)}
    compiled = tuple.__class_getitem__((str, str, api.KernelLaunchParams, api.SymIntExprs))
    _set_signature(describe, {**tensors, **plugin.attributes}, api.TensorDesc)
    _set_signature(autotune, {**tensors, **outputs}, list.__class_getitem__(api.AutoTuneCombination))
    _set_signature(implement, {**tensors, **plugin.attributes, **outputs, "tactic": int}, compiled)
    name = f"{NAMESPACE}::{plugin.name}"
    api.register(name)(describe)
    api.autotune(name)(autotune)
    api.aot_impl(name)(implement)


def _set_signature(function: Any, parameters: Mapping[str, Any], result: Any) -> None:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    listed = [inspect.Parameter(name, kind, annotation=annotation) for name, annotation in parameters.items()]
    function.__signature__ = inspect.Signature(listed, return_annotation=result)


def _target() -> str:
    target = local_target()
    if target is None:
        raise BackendError("Plugins are compiled for the GPU of this machine, and there is none: leave out --plugins.")
    return target
