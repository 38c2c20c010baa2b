"""The parity gate: which differences between a graph and its network are allowed, and which are errors."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from stvsr.engine.contract.errors import ExportError
from stvsr.engine.contract.manifest import Role, SlidingWindow
from stvsr.export.parity import TOLERANCE, Example, measure_parity
from stvsr.training.networks.base import Network
from torch import Tensor, nn


class Gain(Network):
    """Multiplies frames by a weight; adds and subtracts `offset`, which costs precision."""

    window = SlidingWindow(frames=1, padding="replicate")

    def __init__(self, gain: float, offset: float = 0.0) -> None:
        super().__init__()
        self.gain, self.offset = nn.Parameter(torch.tensor(gain)), offset

    def forward(self, frames: Tensor) -> Tensor:
        return frames * self.gain + self.offset - self.offset


def gain_graph(gain: float) -> dict[Role, bytes]:
    axes: list[str | int | None] = ["batch", 1, 3, "height", "width"]
    frames, upscaled = (helper.make_tensor_value_info(n, TensorProto.FLOAT, axes) for n in ("frames", "upscaled"))
    weight = numpy_helper.from_array(np.array(gain, np.float32), "gain")
    graph = helper.make_graph(
        [helper.make_node("Mul", ["frames", "gain"], ["upscaled"])], "gain", [frames], [upscaled], [weight]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return {"network": model.SerializeToString()}


def measure(network: Network, graphs: dict[Role, bytes], with_error: bool = False) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    examples = [Example("network", {"frames": torch.rand(1, 1, 3, 4, width, generator=generator)}) for width in (4, 6)]
    return measure_parity(
        network, graphs, examples, subject="The graphs", remedy="nothing was written", with_error=with_error
    )


def test_equal_graphs_have_no_difference() -> None:
    assert measure(Gain(0.5), gain_graph(0.5)) == {"difference": 0.0}
    assert measure(Gain(0.5), gain_graph(0.5), with_error=True).keys() == {"difference", "float32_error"}


def test_a_difference_up_to_the_tolerance_is_allowed() -> None:
    assert measure(Gain(0.5), gain_graph(0.5 + TOLERANCE / 2))["difference"] == pytest.approx(TOLERANCE / 2, rel=0.1)
    with pytest.raises(ExportError, match=r"The graphs differ from Gain in PyTorch by 9\..*: nothing was written"):
        measure(Gain(0.5), gain_graph(0.5 + 10 * TOLERANCE))


def test_twice_the_networks_own_error_is_allowed() -> None:
    parity = measure(Gain(0.5, offset=1e4), gain_graph(0.5))
    assert parity["difference"] > TOLERANCE
    assert parity["difference"] == pytest.approx(parity["float32_error"], rel=1e-2)
    with pytest.raises(ExportError, match="differ from Gain"):
        measure(Gain(0.5, offset=1e4), gain_graph(0.5 + 30 * TOLERANCE))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("broken", ["network", "graph", "both"])
def test_values_that_are_not_finite_are_an_error(value: float, broken: str) -> None:
    network_gain, graph_gain = (value if broken in (part, "both") else 0.5 for part in ("network", "graph"))
    with pytest.raises(ExportError, match="not finite numbers"):
        measure(Gain(network_gain), gain_graph(graph_gain))
