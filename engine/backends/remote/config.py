"""`config.pbtxt`: what Triton must know of a model, in the text form of its protobuf `ModelConfig`."""

import json
from collections.abc import Iterable, Mapping
from typing import Literal

from ...contract.manifest import Precision, TensorSpec
from .models import VERSION, ServedModel

TritonBackend = Literal["onnxruntime", "tensorrt"]
_QUEUE_DELAY_US = 2000  # that a request waits for others of its shape: a window takes much longer
_VERSIONS = f"version_policy {{ specific {{ versions: [ {VERSION} ] }} }}"
# Windows come in many sizes: memory patterns and a search for the fastest convolution would be made for each of them.
_ONNX_RUNTIME = {"enable_mem_pattern": "0", "cudnn_conv_algo_search": "1"}


def graph_config(
    model: ServedModel, backend: TritonBackend, precision: Precision, max_batch: int, parameters: Mapping[str, str]
) -> str:
    """Return the configuration of the model of one graph; `parameters` are entries for its clients.

    Requests are joined, up to `max_batch` windows of one shape, if every tensor has the batch axis. Without it the
    batch is a free axis like others, and requests run one after another.
    """
    lines = [
        f"name: {_text(model.name)}",
        f"backend: {_text(backend)}",
        f"max_batch_size: {max_batch if model.joins else 0}",
        *_tensors(model),
        _VERSIONS,
        f"instance_group [ {{ count: 1 kind: {'KIND_AUTO' if backend == 'onnxruntime' else 'KIND_GPU'} }} ]",
    ]
    if model.joins and max_batch > 1:
        lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {_QUEUE_DELAY_US} }}")
    if backend == "onnxruntime":
        lines.append(_cuda_options({"prefer_nhwc": "1", "use_tf32": str(int(precision == "tf32"))}))
        parameters = {**_ONNX_RUNTIME, **parameters}
    return "\n".join([*lines, *_parameters(parameters)]) + "\n"


def ensemble_config(model: ServedModel, steps: Iterable[ServedModel], parameters: Mapping[str, str]) -> str:
    """Return the configuration of an ensemble of `steps`, whose tensors pass on under their names."""
    lines = [
        f"name: {_text(model.name)}",
        'platform: "ensemble"',
        "max_batch_size: 0",
        *_tensors(model),
        _VERSIONS,
        "ensemble_scheduling {",
    ]
    for step in steps:
        lines += ["  step {", f"    model_name: {_text(step.name)}", f"    model_version: {VERSION}"]
        for side, specs in (("input_map", step.inputs), ("output_map", step.outputs)):
            lines += [f"    {side} {{ key: {_text(spec.name)} value: {_text(spec.name)} }}" for spec in specs]
        lines.append("  }")
    return "\n".join([*lines, "}", *_parameters(parameters)]) + "\n"


def _tensors(model: ServedModel) -> list[str]:
    sides = (("input", model.inputs), ("output", model.outputs))
    return [f"{side} {_tensor(model, spec)}" for side, specs in sides for spec in specs]


def _tensor(model: ServedModel, spec: TensorSpec) -> str:
    """Return a tensor's entry, whose dimensions leave out the batch axis, if the model has one.

    A tensor of that axis alone has the dimension 1 for clients, which the graph does not see: Triton takes no tensor
    without a dimension.
    """
    described = model.described(spec)
    dims = ", ".join(map(str, described.shape[1:] if model.joins else described.shape))
    reshape = " reshape { shape: [ ] }" if model.joins and len(spec.axes) == 1 else ""
    return f"{{ name: {_text(spec.name)} data_type: TYPE_{described.datatype} dims: [ {dims} ]{reshape} }}"


def _cuda_options(options: Mapping[str, str]) -> str:
    """Return the options of ONNX Runtime's CUDA provider, which a server without a GPU ignores."""
    entries = " ".join(f"parameters {{ key: {_text(k)} value: {_text(v)} }}" for k, v in options.items())
    return f'optimization {{ execution_accelerators {{ gpu_execution_accelerator [ {{ name: "cuda" {entries} }} ] }} }}'


def _parameters(parameters: Mapping[str, str]) -> list[str]:
    return [
        f"parameters {{ key: {_text(key)} value {{ string_value: {_text(value)} }} }}"
        for key, value in parameters.items()
    ]


def _text(value: str) -> str:
    """Return a string literal of the text form, whose escapes are those of JSON."""
    return json.dumps(value)
