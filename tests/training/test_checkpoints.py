"""Checkpoints: networks come back with their configuration, and wrong files and configurations are refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stvsr.engine.contract.errors import CheckpointError, RequestError
from stvsr.training.checkpoints import build_network, load_matching, load_weights, random_weights, read_run
from stvsr.training.networks.dtsr import DeepTemporalSR, DeepTemporalSRConfig
from stvsr.training.networks.edvr import EDVR, EDVRConfig
from stvsr.training.networks.registry import NetworkEntry, configured, find_network
from stvsr.training.networks.videoinr_s import VideoINRS, VideoINRSConfig

from tests.support.toy_networks import TINY_PAIR


def test_weights_of_a_run_load_with_their_configuration_and_record(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = VideoINRS(TINY_PAIR)
    config = {"width": 8, "encoder_blocks": 1, "trunk_blocks": 1, "search_radius": 2, "decoder_width": 8}
    path = tmp_path / "weights.pt"
    torch.save({"config": config, "step": 7, "state_dict": network.state_dict()}, path)
    entry = NetworkEntry("tiny", VideoINRS, VideoINRSConfig(), "")
    loaded, record = load_weights(entry, path)
    assert record == {"step": 7}
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), network.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("name", ["gone.pt", "broken.pt"])
def test_a_missing_or_damaged_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"config": {}, "state_dict": VideoINRS(TINY_PAIR).state_dict()}, path)
    (tmp_path / "broken.pt").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=name):
        load_weights(find_network("videoinr-s"), tmp_path / name)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    network = DeepTemporalSR(DeepTemporalSRConfig(width=8))
    torch.save({"config": {"width": 8, "upsampling": "cubic"}, "state_dict": network.state_dict()}, path)
    assert load_weights(find_network("dtsr-s"), path)[0].config.width == 8
    with pytest.raises(CheckpointError, match="for another network than edvr-s"):
        load_weights(find_network("edvr-s"), path)
    with pytest.raises(CheckpointError, match="should be"):
        load_weights(find_network("dtsr-s"), path, {"width": "16"})


def test_a_deeper_network_starts_with_the_layers_of_a_smaller_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    size = EDVRConfig(num_feat=8, num_frame=3, deformable_groups=2, num_extract_block=1, num_reconstruct_block=1)
    small, deep = EDVR(size), EDVR(replace(size, num_reconstruct_block=2))
    path = tmp_path / "weights.pt"
    torch.save({"config": {}, "state_dict": small.state_dict()}, path)
    missing = load_matching(deep, path)
    assert missing == [name for name in deep.state_dict() if name.startswith("reconstruction.1.")]
    assert all(torch.equal(value, deep.state_dict()[name]) for name, value in small.state_dict().items())
    with pytest.raises(CheckpointError, match=r"No weight of .*weights\.pt fits DeepTemporalSR"):
        load_matching(DeepTemporalSR(DeepTemporalSRConfig(width=8)), path)


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("zsm-s", {"frames": "1"}, r"frames: .* greater than or equal to 2"),
        ("edvr-s", {"num_feat": "-8"}, "negative dimension"),
        ("dtsr-s", {"coarse": "3"}, "not 3"),
    ],
)
def test_a_configuration_that_cannot_be_built_is_a_request_error(
    name: str, changes: dict[str, str], reason: str
) -> None:
    with pytest.raises(RequestError, match=f"{name} cannot be built with .*{reason}.*: choose other values"):
        build_network(configured(find_network(name), changes))


def test_random_weights_depend_on_the_seed() -> None:
    entry = replace(find_network("dtsr-s"), config=DeepTemporalSRConfig(width=4))
    first, second, other = (random_weights(entry, seed)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_state_of_a_run_is_refused_if_it_is_damaged_or_of_another_configuration(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"config": {"width": 8}, "step": 3}, path)
    assert read_run(tmp_path, {"width": 8}, "cpu")["step"] == 3
    with pytest.raises(RequestError, match="run of another configuration"):
        read_run(tmp_path, {"width": 9}, "cpu")
    torch.save([1, 2], path)
    with pytest.raises(RequestError, match="run of another configuration"):
        read_run(tmp_path, {"width": 8}, "cpu")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"last\.pt cannot be read"):
        read_run(tmp_path, {"width": 8}, "cpu")
