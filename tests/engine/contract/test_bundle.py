"""Loading bundles: valid manifests and graphs, and the errors for invalid ones."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stvsr.engine.contract import bundle as bundle_module
from stvsr.engine.contract.bundle import Bundle, find_bundle, shipped_bundles, write_manifest
from stvsr.engine.contract.errors import BundleError
from stvsr.engine.contract.manifest import ContinuousSpace, FixedFactors, SizeConstraint

from tests.support.toy import write_toy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "toy")


def edit(folder: Path, **changes: Any) -> None:
    """Replace fields of the manifest in a bundle's folder."""
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_written_bundle_loads(folder: Path) -> None:
    bundle = Bundle.load(folder)
    assert bundle.manifest.name == "toy"
    assert bundle.path("decoder") == folder / "decoder.onnx"
    assert [spec.name for spec in bundle.graph("decoder").inputs] == ["features", "time", "y", "x"]
    assert isinstance(bundle.manifest.space, ContinuousSpace)
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "encoder.onnx", "decoder.onnx"}


def test_the_fingerprint_depends_on_the_manifest_and_not_on_the_folder(folder: Path, tmp_path: Path) -> None:
    assert Bundle.load(folder).fingerprint == Bundle.load(write_toy(tmp_path / "same")).fingerprint
    assert Bundle.load(folder).fingerprint != Bundle.load(write_toy(tmp_path / "other", name="other")).fingerprint


def test_a_manifest_is_frozen(folder: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        Bundle.load(folder).manifest.name = "another"


def test_a_changed_graph_is_refused_by_name(folder: Path) -> None:
    with (folder / "decoder.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=r"decoder\.onnx has changed"):
        Bundle.load(folder)


def test_a_missing_graph_is_refused_by_name(folder: Path) -> None:
    (folder / "encoder.onnx").unlink()
    with pytest.raises(BundleError, match=r"encoder\.onnx is named by its manifest"):
        Bundle.load(folder)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is no bundle"):
        Bundle.load(tmp_path)


@pytest.mark.parametrize("text", ["{", "", '{"format": 1', "\x80"])
def test_invalid_json_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match=r"manifest\.json is not valid JSON"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2, and this stvsr reads up to 1: update"),
        ({"format": "1"}, "format"),
        ({"colour": "blue"}, "colour: Extra inputs are not permitted"),
        ({"size": {"minimum": 16, "multiple_of": 8, "divisor": 2}}, "size.divisor: Extra"),
        ({"size": {"minimum": 16, "multiple_of": 0}}, "size.multiple_of"),
        ({"space": {"kind": "spherical"}}, "space"),
        ({"space": {"kind": "continuous", "minimum": 3.0, "maximum": 2.0}}, "smallest space factor"),
        ({"time": {"kind": "fixed", "factors": []}}, "time"),
        ({"graphs": []}, "'pair' takes the graphs decoder and encoder"),
        ({"window": {"kind": "run", "frames": 4}}, "'run' takes the graphs network"),
        ({"window": {"kind": "spiral", "frames": 4}}, "window"),
        ({"value_range": [1, 1]}, "value range is empty"),
        ({"halo_px": -1}, "halo_px"),
        ({"halo_px": "wide"}, "halo_px"),
    ],
)
def test_an_invalid_field_is_refused_by_name(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"window": {"kind": "sliding", "frames": 4, "padding": "replicate"}},
            "a sliding window has an odd number of frames",
        ),
        ({"window": {"kind": "run", "frames": 4}, "time": {"kind": "fixed", "factors": [3]}}, "time factors 'x3'"),
        ({"window": {"kind": "sliding", "frames": 5, "padding": "replicate"}}, "time factors 'any'"),
        ({"window": {"kind": "doubled", "frames": 8, "overlap": 2}}, "time factors 'any'"),
        ({"window": {"kind": "doubled", "frames": 8, "overlap": 2, "coarse": 6}}, "power of two (1, 2, 4, ...), not 6"),
        (
            {"window": {"kind": "doubled", "frames": 8, "overlap": 2, "coarse": 2}},
            "networks that keep the size, not for x1 to x8",
        ),
        (
            {"window": {"kind": "run", "frames": 4}, "flows": [{"name": "flow", "pairs": [[0, 1], [3, 4]]}]},
            "the flows 'flow' name frames outside the window of 4",
        ),
    ],
)
def test_fields_that_contradict_each_other_are_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    graphs = json.loads((folder / "manifest.json").read_text())["graphs"]
    edit(folder, graphs=[{**graphs[0], "role": "network"}], **changes)
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    assert message in str(caught.value)


@pytest.mark.parametrize("field", ["format", "name", "graphs", "window", "space", "time", "halo_px", "licence"])
def test_a_missing_field_is_refused_by_name(folder: Path, field: str) -> None:
    path = folder / "manifest.json"
    fields = json.loads(path.read_text())
    del fields[field]
    path.write_text(json.dumps(fields))
    with pytest.raises(BundleError, match=f"{field}: Field required"):
        Bundle.load(folder)


@pytest.mark.parametrize("file", ["../encoder.onnx", "/encoder.onnx", "sub/encoder.onnx", ".hidden"])
def test_a_graph_file_outside_the_bundle_is_refused(folder: Path, file: str) -> None:
    graphs = json.loads((folder / "manifest.json").read_text())["graphs"]
    edit(folder, graphs=[{**graphs[0], "file": file}, graphs[1]])
    with pytest.raises(BundleError, match=r"graphs\.0\.file"):
        Bundle.load(folder)


def test_fixed_factors_load(folder: Path) -> None:
    edit(folder, space={"kind": "fixed", "factors": [4]}, time={"kind": "fixed", "factors": [2]})
    assert Bundle.load(folder).manifest.space == FixedFactors(factors=(4,))


def test_a_bundle_without_the_graph_of_a_role_names_its_manifest(folder: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json names no graph 'network'"):
        Bundle.load(folder).path("network")


def test_bundles_are_found_by_name_and_by_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "MODELS", tmp_path / "models")
    write_toy(tmp_path / "models" / "toy-s")
    assert list(shipped_bundles()) == ["toy-s"]
    assert find_bundle("toy-s").folder == tmp_path / "models" / "toy-s"
    assert find_bundle(folder).folder == find_bundle(str(folder)).folder == folder
    with pytest.raises(BundleError, match=r"no bundle 'toy-xl': name one of 'stvsr models' \(toy-s\)"):
        find_bundle("toy-xl")


def test_every_shipped_bundle_loads() -> None:
    for name, folder in shipped_bundles().items():
        assert Bundle.load(folder).manifest.name == name


@settings(deadline=None)
@given(size=st.integers(1, 3000), minimum=st.integers(1, 100), multiple=st.integers(1, 32))
def test_padded_is_the_smallest_accepted_size(size: int, minimum: int, multiple: int) -> None:
    padded = SizeConstraint(minimum=minimum, multiple_of=multiple).padded(size)
    assert padded % multiple == 0
    assert padded >= max(size, minimum)
    assert padded - multiple < max(size, minimum)


def test_pad_repeats_the_last_row_and_column() -> None:
    constraint = SizeConstraint(minimum=4, multiple_of=4)
    frame = np.arange(2 * 3 * 5, dtype=np.float32).reshape(2, 3, 5)
    padded = constraint.pad(frame)
    assert padded.shape == (2, 4, 8)
    np.testing.assert_array_equal(padded[:, 3, :5], frame[:, 2])
    np.testing.assert_array_equal(padded[:, :3, 7], frame[:, :, 4])
    assert constraint.pad(padded) is padded


@pytest.mark.parametrize(
    ("size_px", "target_px", "supported"),
    [(100, 100, True), (100, 99, False), (100, 400, True), (100, 401, False), (5, 20, True), (101, 404, True)],
)
def test_continuous_space_accepts_targets_in_its_range(size_px: int, target_px: int, supported: bool) -> None:
    assert ContinuousSpace(minimum=1, maximum=4).serves(size_px, target_px) is supported


def test_continuous_space_allows_half_a_pixel_of_rounding() -> None:
    assert ContinuousSpace(minimum=1, maximum=2.5).serves(5, 13)  # 12.5 rounds either way
    assert not ContinuousSpace(minimum=1, maximum=2.5).serves(5, 14)


def test_many_can_write_a_manifest_at_the_same_time(folder: Path) -> None:
    manifest = Bundle.load(folder).manifest
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: write_manifest(folder, manifest), range(200))) == {folder / "manifest.json"}
    assert Bundle.load(folder).manifest == manifest
