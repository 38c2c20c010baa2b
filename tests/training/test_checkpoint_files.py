"""Checkpoints of others: safetensors are read, and no content ends in anything but a sentence."""

import io
import json
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stvsr.engine.contract.errors import CheckpointError, RequestError, StvsrError
from stvsr.training.checkpoint_files import read_checkpoint
from stvsr.training.checkpoints import build_network, load_weights, read_state_dict
from stvsr.training.networks.registry import NetworkEntry, configured, find_network
from stvsr.training.networks.videoinr_s import VideoINRS, VideoINRSConfig

from tests.support.toy_networks import TINY_PAIR

safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
ENTRY = NetworkEntry("tiny", VideoINRS, VideoINRSConfig(), "")
CONFIG = {"width": 8, "encoder_blocks": 1, "trunk_blocks": 1, "search_radius": 2, "decoder_width": 8}


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_safetensors_load_with_their_configuration(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    state = VideoINRS(TINY_PAIR).state_dict()
    path = tmp_path / name
    safetensors.save_file(state, path, {"config": json.dumps(CONFIG), "source": "somewhere"})
    loaded, record = load_weights(ENTRY, path)
    assert record == {"source": "somewhere"}
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    safetensors.save_file(state, path)
    loaded, record = load_weights(NetworkEntry("tiny", VideoINRS, TINY_PAIR, ""), path)
    assert record == {"checkpoint": name}


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.zeros(3, 3).to_sparse(), "sparse"),
        (torch.zeros(3, dtype=torch.complex64), "complex64"),
    ],
)
def test_tensors_that_are_no_weights_are_named(tmp_path: Path, tensor: torch.Tensor, kind: str) -> None:
    torch.save({"a": torch.zeros(1), "b": tensor}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=f"'b' of .* of the kind '{kind}'|cannot be read"):
        read_state_dict(tmp_path / "c.pt")


def test_a_compressed_archive_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "c.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 24))
    with pytest.raises(CheckpointError, match="is compressed"):
        read_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize("field", ["num_feat=4096", "num_reconstruct_block=1000000000"])
def test_a_network_that_is_too_large_is_refused_before_it_takes_memory(field: str) -> None:
    name, value = field.split("=")
    with pytest.raises(RequestError, match=r"larger than every network|weights of .* GiB"):
        build_network(configured(find_network("edvr-s"), {name: value}))


def _valid() -> dict[str, bytes]:
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(1)}
    contents: dict[str, bytes] = {"safetensors": safetensors.save(state)}
    for name, options in (("zip", {}), ("legacy", {"_use_new_zipfile_serialization": False})):
        buffer = io.BytesIO()
        torch.save(state, buffer, **options)
        contents[name] = buffer.getvalue()
    contents["pickle"] = pickle.dumps({"a": 1})
    return contents


VALID = _valid()


@pytest.mark.parametrize("kind", sorted(VALID))
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_changed_bytes_give_tensors_or_a_sentence(
    kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(VALID[kind])
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"changed.{kind}"
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2]))])
    with suppress(StvsrError):
        read_state_dict(path)
