"""Self-supervised adaptation, compared with the authors' demonstration on EDVR: pairs, gradients and steps."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from stvsr.engine.contract.manifest import SlidingWindow
from stvsr.engine.contract.windows import window_numbers
from stvsr.training.adapt.learning import Learning, learn
from stvsr.training.adapt.protocol import Budget
from stvsr.training.adapt.pseudo import Crop, PseudoPairs, bicubic
from stvsr.training.checkpoints import load_official
from stvsr.training.networks.base import Network
from stvsr.training.networks.edvr import EDVR, EDVR_M
from torch import Tensor

from tests.support.oracle import Oracle, load_oracle


@pytest.fixture(scope="module")
def official() -> tuple[Oracle, EDVR]:
    oracle = load_oracle("selfadapt_edvr_m")
    network = EDVR(EDVR_M).eval()
    load_official(network, load_oracle("edvr_m").weights)
    return oracle, network


class DemonstrationPairs(PseudoPairs):
    """Pairs at the crops of the demonstration instead of random ones."""

    def __init__(self, network: Network, oracle: Oracle) -> None:
        frames = oracle.arrays["in/hr_frames"].transpose(0, 2, 3, 1)
        super().__init__(network, [frames], oracle.record["here"]["patch"] // 4, (0.8, 0.95), bicubic, None, 0)
        self.plan = iter(oracle.record["plan"])

    def draw(self) -> Crop:
        crop = next(self.plan)
        return Crop(0, crop["frame_idx"], tuple(crop["resized_hw"]), crop["crop_y"], crop["crop_x"])


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).detach().norm() / expected.detach().norm())


def test_pairs_match_the_demonstration(official: tuple[Oracle, EDVR]) -> None:
    oracle, network = official
    example = DemonstrationPairs(network, oracle).batch(2)
    assert (example.inputs[0] - oracle.tensor("step0/lq")).abs().max() < 2e-5
    assert (example.target[:, 0] - oracle.tensor("step0/gt")).abs().max() < 2e-5


def test_windows_match_the_demonstration(official: tuple[Oracle, EDVR]) -> None:
    oracle, network = official
    for crop in oracle.record["plan"]:
        assert isinstance(network.window, SlidingWindow)
        assert window_numbers(network.window, crop["center"], 5) == crop["frame_idx"]


def test_first_gradients_match_the_demonstration(official: tuple[Oracle, EDVR]) -> None:
    oracle, network = official
    example = DemonstrationPairs(network, oracle).batch(2)
    network.zero_grad()
    F.mse_loss(network(*example.inputs), example.target).backward()
    names = [name.removeprefix("step0/grad/") for name in oracle.arrays if name.startswith("step0/grad/")]
    assert len(names) == 5
    errors = {}
    for name in names:
        gradient = network.get_parameter(name).grad
        assert gradient is not None
        errors[name] = relative_error(gradient, oracle.tensor(f"step0/grad/{name}"))
    assert max(errors.values()) < 1e-3, errors


def test_four_steps_match_the_demonstration(official: tuple[Oracle, EDVR]) -> None:
    oracle, start = official
    options = oracle.record["here"]
    network = EDVR(EDVR_M).eval()
    network.load_state_dict(start.state_dict())
    pairs, clock = DemonstrationPairs(network, oracle), Budget(steps=options["steps"]).start()
    losses = learn(network, pairs, Learning(options["lr"], batch=options["batch"], loss="squared"), clock)
    np.testing.assert_allclose(losses, oracle.record["losses"], rtol=1e-5)
    for name in ("conv_last.weight", "conv_last.bias", "pcd_align.cas_dcnpack.conv_offset.bias"):
        before, after = start.get_parameter(name), network.get_parameter(name)
        assert relative_error(after - before, oracle.tensor(f"after/{name}") - before) < 2e-3
    with torch.no_grad():
        change = network(oracle.tensor("probe/in"))[:, 0] - oracle.tensor("probe/before")
    assert relative_error(change, oracle.tensor("probe/after") - oracle.tensor("probe/before")) < 1e-3
