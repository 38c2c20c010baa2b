"""The parity gate: graphs must compute what their network computes in PyTorch."""

import copy
from collections.abc import Mapping, Sequence, Set
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..engine.backends.onnxruntime import OrtSession
from ..engine.backends.session import Session
from ..engine.contract.errors import ExportError
from ..engine.contract.manifest import Role
from ..training.networks.base import Network, decode_pair
from ..training.networks.ops import target_coordinates

TOLERANCE = 1e-4  # largest difference between graphs and network, for frames in [0, 1]

Inputs = Mapping[str, Tensor]  # of a network, by the names of its graphs' inputs and in the order of its arguments


class Example(NamedTuple):
    """Inputs on which a network and its graphs are compared."""

    role: Role  # of the graph that returns the frames: network, decoder or integer_decoder
    inputs: Inputs


def pair_examples(inputs: Inputs, roles: Set[Role], scale: float, factors: tuple[int, int]) -> list[Example]:
    """Return an example for each decoder of a pair's bundle, from its frames and time.

    `scale` is for the decoder of any scale, `factors`, of height and width, are for that of integer factors.
    """
    sizes = zip("yx", inputs["frames"].shape[-2:], strict=True)
    positions = {name: target_coordinates(n, round(n * scale)) for name, n in sizes}
    examples = [Example("decoder", {**inputs, **positions})]
    if "integer_decoder" in roles:
        examples.append(Example("integer_decoder", {**inputs, **pixel_phases(*factors)}))
    return examples


def pixel_phases(rows: int, columns: int) -> dict[str, Tensor]:
    """Return the inputs `y` and `x` of the decoder for integer scale factors: `rows` for the height, and `columns`."""
    return {"y": target_coordinates(1, rows), "x": target_coordinates(1, columns)}


def measure_parity(
    network: Network,
    graphs: Mapping[Role, Path | bytes],
    examples: Sequence[Example],
    *,
    subject: str,
    remedy: str,
    with_error: bool = False,
) -> dict[str, float]:
    """Run graphs in ONNX Runtime beside their network, which is on the CPU, and return the largest difference.

    The result also has the network's own error in float32, measured against float64, if `with_error` is true or if the
    difference is above `TOLERANCE`. Large arguments of sines magnify rounding, so two correct programs can differ by
    more than `TOLERANCE`: up to twice this error is allowed.

    Raises ExportError if the difference is larger, or if any value is not a finite number. `subject` names the graphs
    in the error, and `remedy` says what to do.
    """
    with ExitStack() as stack:
        sessions = {role: stack.enter_context(OrtSession(graph)) for role, graph in graphs.items()}
        actual = [run_graphs(sessions, example) for example in examples]
    expected = [network_output(network, example) for example in examples]
    parity = {"difference": _largest_difference(actual, expected, network, remedy)}
    allowed = TOLERANCE
    if with_error or parity["difference"] > TOLERANCE:
        precise_network = copy.deepcopy(network).double()
        precise = [network_output(precise_network, example) for example in examples]
        parity["float32_error"] = _largest_difference(expected, precise, network, remedy)
        allowed = max(TOLERANCE, 2 * parity["float32_error"])
    if parity["difference"] > allowed:
        raise ExportError(
            f"{subject} differ from {type(network).__name__} in PyTorch by {parity['difference']:.2e}, and at most"
            f" {allowed:.1e} is allowed: {remedy}."
        )
    return parity


def run_graphs(sessions: Mapping[Role, Session], example: Example) -> np.ndarray:
    """Run the open graphs of a bundle on the inputs of its network, and return the output frames."""
    arrays = {name: value.numpy() for name, value in example.inputs.items()}
    if example.role == "network":
        return np.asarray(sessions["network"].run(arrays)["upscaled"])
    maps = sessions["encoder"].run({"frames": arrays.pop("frames")})
    if "refiner" in sessions:
        maps = sessions["refiner"].run({**maps, "time": arrays.pop("time")})
    return np.asarray(sessions[example.role].run({**maps, **arrays})["frame"])


@torch.no_grad()
def network_output(network: Network, example: Example) -> np.ndarray:
    """Run a network on its inputs, in the dtype of its weights, and return the output frames."""
    net: Any = network
    dtype = next(net.parameters()).dtype
    frames, *others = (value.to(dtype) for value in example.inputs.values())
    if example.role == "network":
        return net(frames, *others).numpy()
    return decode_pair(network, net.encode(frames), *others, integer=example.role == "integer_decoder").numpy()


def _largest_difference(
    actual: Sequence[np.ndarray], expected: Sequence[np.ndarray], network: Network, remedy: str
) -> float:
    if not all(np.isfinite(values).all() for values in (*actual, *expected)):
        raise ExportError(
            f"{type(network).__name__} computes values that are not finite numbers: check its weights; {remedy}."
        )
    return max(float(np.abs(a - e).max()) for a, e in zip(actual, expected, strict=True))
