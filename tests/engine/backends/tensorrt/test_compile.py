"""compile_bundle: engines for any GPU without one, written beside the graphs and recorded in the manifest."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from stvsr import BackendError, Bundle, BundleError, RequestError
from stvsr.engine.backends.tensorrt.engines import TARGETS, compile_bundle, find_engine
from stvsr.engine.backends.tensorrt.shapes import default_shapes
from stvsr.engine.contract.bundle import file_sha256, find_bundle, write_manifest
from stvsr.engine.contract.manifest import Engine
from stvsr.export.importer import ImportOptions, import_weights
from stvsr.training.networks.rife import RIFE, RIFEConfig

from tests.support import image_networks
from tests.support.exports import FULL, SMALL, exported
from tests.support.toy_engines import SHAPES, files_in, write_unbuildable_toy


def test_engines_are_written_beside_their_graphs_and_recorded(rtx: ModuleType, toy: Bundle) -> None:
    graphs = files_in(toy.folder)
    reported: list[Engine] = []
    engines = compile_bundle(toy, precision="fp16", shapes=SHAPES, on_built=reported.append)
    assert engines == reported
    assert [(e.role, e.target) for e in engines] == [(role, t) for role in ("encoder", "decoder") for t in TARGETS]
    assert files_in(toy.folder) == sorted([*graphs, *{engine.file for engine in engines}])
    for engine in engines:
        assert engine.sha256 == file_sha256(toy.folder / engine.file)
        assert engine.graph_sha256 == toy.graph(engine.role).sha256
        assert (engine.library, engine.version, engine.precision) == ("tensorrt-rtx", rtx.__version__, "fp16")
        assert engine.shapes == {name: SHAPES[name] for name in ("Bhw" if engine.role == "encoder" else "BhwHW")}
        assert Engine.model_validate_json(engine.model_dump_json()) == engine
    assert len({engine.sha256 for engine in engines}) == 2  # one file for each graph, with all targets
    recorded = Bundle.load(toy.folder)
    assert recorded.manifest.engines == tuple(engines)
    assert recorded.fingerprint == toy.fingerprint  # engines are no part of the network


def test_engines_replace_those_of_the_same_target(rtx: ModuleType, toy: Bundle) -> None:
    graphs = files_in(toy.folder)
    engines = compile_bundle(toy, precision="fp16", shapes=SHAPES)
    sm75 = compile_bundle(toy, precision="fp16", shapes=SHAPES, targets=("sm75", "sm75"))
    assert [engine.target for engine in sm75] == ["sm75", "sm75"]  # one for each graph: a target counts once
    assert Bundle.load(toy.folder).manifest.engines == (*engines, *sm75)
    sm80 = compile_bundle(toy, precision="fp16", shapes=SHAPES, targets=("sm80",))
    others = [engine for engine in engines if engine.target != "sm80"]
    assert Bundle.load(toy.folder).manifest.engines == (*others, *sm75, *sm80)
    assert files_in(toy.folder) == sorted([*graphs, *{engine.file for engine in (*others, *sm75, *sm80)}])
    again = compile_bundle(toy, precision="fp16", shapes=SHAPES)
    assert Bundle.load(toy.folder).manifest.engines == (*sm75, *again)
    assert files_in(toy.folder) == sorted([*graphs, *{engine.file for engine in (*sm75, *again)}])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_shipped_network_builds(rtx: ModuleType, precision: Any, tmp_path: Path) -> None:
    bundle = Bundle.load(shutil.copytree(find_bundle("videoinr-s").folder, tmp_path / "bundle"))
    shapes = {"batch": (1, 1, 2), "height": (16, 272, 1088)}
    engines = compile_bundle(bundle, precision=precision, shapes=shapes, targets=("sm89",))
    assert [engine.role for engine in engines] == ["encoder", "decoder"]
    assert engines[1].shapes["height"] == (16, 272, 1088)
    assert engines[1].shapes["target_width"] == default_shapes(bundle.manifest)["target_width"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name in ("zsm-s", "tmnet-s") else ()) for name in SMALL]
)
def test_every_compact_network_builds(rtx: ModuleType, name: str, tmp_path: Path) -> None:
    bundle = Bundle.load(shutil.copytree(exported(name)[1].folder, tmp_path / name))
    sizes = {}
    for precision in ("fp32", "fp16"):
        for engine in compile_bundle(bundle, precision=precision, shapes={"batch": (1, 1, 2)}, targets=("sm89",)):
            sizes[precision] = (bundle.folder / engine.file).stat().st_size
    assert sizes["fp16"] != sizes["fp32"]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [*image_networks.SMALL, "RIFE"])
def test_imported_networks_build(rtx: ModuleType, architecture: str, tmp_path: Path) -> None:
    weights = tmp_path / "flownet.pkl"
    if architecture == "RIFE":
        torch.save(RIFE(RIFEConfig("4.0")).state_dict(), weights)
    else:
        image_networks.need_spandrel()
        weights = image_networks.save_weights(image_networks.build(architecture), tmp_path / "weights.pth")
    import_weights(weights, tmp_path / "bundle", ImportOptions("MIT", "a test"))
    bundle = Bundle.load(tmp_path / "bundle")
    engines = compile_bundle(bundle, precision="fp16", targets=("sm89",))
    assert [engine.role for engine in engines] == [graph.role for graph in bundle.manifest.graphs]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["fourier-s", *(pytest.param(name, marks=pytest.mark.long) for name in ("videoinr-s", *SMALL, "videoinr", *FULL))],
)
def test_every_network_builds_for_every_default_target(rtx: ModuleType, name: str, tmp_path: Path) -> None:
    """In both precisions and with free sizes, so that a graph that no longer builds is found."""
    parent = find_bundle(name) if name in ("fourier-s", "videoinr-s") else exported(name)[1]
    bundle = Bundle.load(shutil.copytree(parent.folder, tmp_path / name))
    for precision in ("fp32", "fp16"):
        engines = compile_bundle(bundle, precision=precision, targets=TARGETS)
        assert len(engines) == len(TARGETS) * len(bundle.manifest.graphs)
    assert len(Bundle.load(bundle.folder).manifest.engines) == 2 * len(engines)


def test_a_failed_build_names_the_operator_and_leaves_nothing(rtx: ModuleType, tmp_path: Path, cache: Path) -> None:
    bundle = write_unbuildable_toy(tmp_path / "bundle")
    before = files_in(bundle.folder)
    with pytest.raises(BackendError, match=r"cannot parse the graph decoder\.onnx \(Det .*export the bundle again"):
        compile_bundle(bundle, shapes=SHAPES, targets=("sm89",))
    assert files_in(bundle.folder) == before
    with pytest.raises(BackendError, match="Det"):
        find_engine(bundle, "decoder", target="sm89", shapes=SHAPES)
    assert list(cache.iterdir()) == []


def test_outputs_of_a_graph_are_compared_with_the_manifest(rtx: ModuleType, toy: Bundle) -> None:
    encoder = toy.graph("encoder")
    wrong = encoder.outputs[0].model_copy(update={"axes": ("B", 2, 4, "h", "w")})
    graphs = (encoder.model_copy(update={"outputs": (wrong,)}), toy.graph("decoder"))
    write_manifest(toy.folder, toy.manifest.model_copy(update={"graphs": graphs}))
    with pytest.raises(BundleError, match=r"encoder\.onnx has the output 'features' of \(.*3.*manifest states .*4"):
        compile_bundle(Bundle.load(toy.folder), shapes=SHAPES, targets=("sm89",))
    assert not list(toy.folder.glob("*.engine"))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"height": (16, 24, 64)}, "no free axis 'height': it has B, H, W, h, w"),
        ({"h": (16, 64, 24)}, "axis 'h' are 16, 64 and 24: give the smallest"),
        ({"h": (0, 64, 64)}, "axis 'h' are 0, 64 and 64"),
        ({}, r"'B' of encoder\.onnx has no sizes"),
    ],
)
def test_compile_refuses_wrong_shapes(rtx: ModuleType, toy: Bundle, shapes: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        compile_bundle(toy, shapes=shapes)


def test_compile_refuses_frames_that_the_network_does_not_take(rtx: ModuleType) -> None:
    bundle = find_bundle("videoinr-s")
    with pytest.raises(RequestError, match="'height' cannot be 16, 270 and 720: use multiples of 8 from 16 on"):
        compile_bundle(bundle, shapes={"height": (16, 270, 720)})


def test_default_shapes_are_sizes_that_the_network_takes() -> None:
    defaults = default_shapes(find_bundle("videoinr-s").manifest)
    assert defaults["height"] == (16, 360, 640)
    assert defaults["target_height"] == (2, 1440, 5120)


def test_compile_refuses_unknown_options(rtx: ModuleType, toy: Bundle) -> None:
    with pytest.raises(BackendError, match=r"does not build for 'sm61': use one of sm75, .*sm120"):
        compile_bundle(toy, shapes=SHAPES, targets=("sm61",))
    with pytest.raises(BackendError, match="Unknown engine library 'openvino': use tensorrt or tensorrt-rtx"):
        compile_bundle(toy, shapes=SHAPES, library="openvino")  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="TensorRT-RTX has no plugins: use --library tensorrt"):
        compile_bundle(toy, shapes=SHAPES, plugins=True)
    with pytest.raises(BackendError, match="Unknown precision 'int8': use fp32, tf32 or fp16"):
        compile_bundle(toy, shapes=SHAPES, precision="int8")  # type: ignore[arg-type]


def test_compile_prints_nothing(rtx: ModuleType, tmp_path: Path) -> None:
    folder = write_unbuildable_toy(tmp_path / "bundle").folder
    code = (
        "from stvsr import BackendError, Bundle\n"
        "from stvsr.engine.backends.tensorrt.engines import compile_bundle\n"
        f"try: compile_bundle(Bundle.load({str(folder)!r}), shapes={SHAPES!r})\n"
        "except BackendError: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
