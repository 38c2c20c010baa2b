"""Engines: built for any card without one, recorded, cached, and never half there."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import helper
from stvsr.engine.backends.tensorrt import builder as tensorrt
from stvsr.engine.backends.tensorrt import engines as compiler
from stvsr.engine.backends.tensorrt.builder import check_engine, check_target, check_tensors, load_library
from stvsr.engine.backends.tensorrt.engines import TARGETS, cache_folder, compile_bundle, default_shapes, find_engine
from stvsr.engine.contract.axes import axis_range
from stvsr.engine.contract.bundle import Bundle, file_sha256, find_bundle, write_manifest
from stvsr.engine.contract.errors import BackendError, BundleError, RequestError
from stvsr.engine.contract.manifest import Engine, TensorSpec

from tests.support.exports import FULL, SMALL, exported
from tests.support.toy import save_graph, write_toy

SHAPES = {"B": (1, 1, 2), "h": (16, 24, 64), "w": (16, 40, 80), "H": (2, 96, 256), "W": (2, 160, 320)}
# Exported and built in more than half a minute.
LONG = ("zsm-s", "tmnet-s", "stinet-s")


@pytest.fixture
def rtx() -> ModuleType:
    try:
        return load_library("tensorrt-rtx")
    except BackendError as absent:
        pytest.skip(str(absent))


@pytest.fixture
def toy(tmp_path: Path) -> Bundle:
    return Bundle.load(write_toy(tmp_path / "toy"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STVSR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "engines"


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The targets of all builds so far."""
    seen: list[str] = []
    build = compiler.build_engine

    def counted(*arguments: Any) -> bytes:
        seen.append(arguments[2].target)
        return build(*arguments)

    monkeypatch.setattr(compiler, "build_engine", counted)
    return seen


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_engines_lie_beside_their_graphs_and_are_recorded(rtx: ModuleType, toy: Bundle) -> None:
    graphs = files(toy.folder)
    told: list[Engine] = []
    engines = compile_bundle(toy, precision="fp16", shapes=SHAPES, on_built=told.append)
    assert engines == told
    assert [(e.role, e.target) for e in engines] == [(role, t) for role in ("encoder", "decoder") for t in TARGETS]
    assert files(toy.folder) == sorted([*graphs, *{engine.file for engine in engines}])
    for engine in engines:
        assert engine.sha256 == file_sha256(toy.folder / engine.file)
        assert engine.graph_sha256 == toy.graph(engine.role).sha256
        assert (engine.library, engine.version, engine.precision) == ("tensorrt-rtx", rtx.__version__, "fp16")
        assert engine.shapes == {name: SHAPES[name] for name in ("Bhw" if engine.role == "encoder" else "BhwHW")}
        assert Engine.model_validate_json(engine.model_dump_json()) == engine
    assert len({engine.sha256 for engine in engines}) == 2  # one file of each graph, for all targets
    recorded = Bundle.load(toy.folder)
    assert recorded.manifest.engines == tuple(engines)
    assert recorded.fingerprint == toy.fingerprint  # the same network
    again = compile_bundle(toy, precision="fp16", shapes=SHAPES, targets=("sm75", "sm75"))
    assert [engine.target for engine in again] == ["sm75", "sm75"]  # once for each graph
    assert Bundle.load(toy.folder).manifest.engines == (*engines, *again)
    once_more = compile_bundle(toy, precision="fp16", shapes=SHAPES, targets=("sm80",))
    left = [engine for engine in engines if engine.target != "sm80"]
    assert Bundle.load(toy.folder).manifest.engines == (*left, *again, *once_more)
    assert files(toy.folder) == sorted([*graphs, *{engine.file for engine in (*left, *again, *once_more)}])
    all_again = compile_bundle(toy, precision="fp16", shapes=SHAPES)
    assert Bundle.load(toy.folder).manifest.engines == (*again, *all_again)
    assert files(toy.folder) == sorted([*graphs, *{engine.file for engine in (*again, *all_again)}])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_shipped_network_builds(rtx: ModuleType, precision: Any, tmp_path: Path) -> None:
    bundle = Bundle.load(shutil.copytree(find_bundle("videoinr-s").folder, tmp_path / "bundle"))
    shapes = {"batch": (1, 1, 2), "height": (16, 272, 1088)}
    engines = compile_bundle(bundle, precision=precision, shapes=shapes, targets=("sm89",))
    assert [engine.role for engine in engines] == ["encoder", "decoder"]
    assert engines[1].shapes["height"] == (16, 272, 1088)
    assert engines[1].shapes["target_width"] == default_shapes(bundle.manifest)["target_width"]


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in SMALL])
def test_every_compact_network_builds(rtx: ModuleType, name: str, tmp_path: Path) -> None:
    bundle = Bundle.load(shutil.copytree(exported(name)[1].folder, tmp_path / name))
    sizes = {}
    for precision in ("fp32", "fp16"):
        for engine in compile_bundle(bundle, precision=precision, shapes={"batch": (1, 1, 2)}, targets=("sm89",)):
            sizes[precision] = (bundle.folder / engine.file).stat().st_size
    assert sizes["fp16"] != sizes["fp32"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["videoinr-s", *SMALL, "videoinr", *FULL])
def test_every_network_builds_for_every_card(rtx: ModuleType, name: str, tmp_path: Path) -> None:
    """In both precisions, of sizes that are free: a graph that stops building fails here."""
    parent = find_bundle(name) if name == "videoinr-s" else exported(name)[1]
    bundle = Bundle.load(shutil.copytree(parent.folder, tmp_path / name))
    for precision in ("fp32", "fp16"):
        engines = compile_bundle(bundle, precision=precision, targets=TARGETS)
        assert len(engines) == len(TARGETS) * len(bundle.manifest.graphs)
    assert len(Bundle.load(bundle.folder).manifest.engines) == 2 * len(engines)


def unbuildable(folder: Path) -> Bundle:
    """A toy whose decoder holds an operator that engines lack."""
    toy = Bundle.load(write_toy(folder))
    graph = toy.graph("decoder")
    inputs = {spec.name: spec.axes for spec in graph.inputs}
    nodes = [
        helper.make_node("Det", ["features"], ["det"]),
        helper.make_node("Shape", ["y"], ["h"]),
        helper.make_node("Shape", ["x"], ["w"]),
        helper.make_node("Shape", ["time"], ["b"]),
        helper.make_node("Concat", ["b", "three", "h", "w"], ["shape"], axis=0),
        helper.make_node("ReduceSum", ["det"], ["sum"], keepdims=0),
        helper.make_node("Expand", ["sum", "shape"], ["frame"]),
    ]
    save_graph(toy.path("decoder"), nodes, inputs, {"frame": ("B", 3, "H", "W")}, three=np.array([3]))
    changed = graph.model_copy(update={"sha256": file_sha256(toy.path("decoder"))})
    graphs = (toy.graph("encoder"), changed)
    write_manifest(folder, toy.manifest.model_copy(update={"graphs": graphs}))
    return Bundle.load(folder)


def test_a_failed_build_names_the_operator_and_leaves_nothing(rtx: ModuleType, tmp_path: Path, cache: Path) -> None:
    bundle = unbuildable(tmp_path / "bundle")
    before = files(bundle.folder)
    with pytest.raises(BackendError, match=r"cannot take the graph decoder\.onnx \(Det .*export the bundle again"):
        compile_bundle(bundle, shapes=SHAPES, targets=("sm89",))
    assert files(bundle.folder) == before
    with pytest.raises(BackendError, match="Det"):
        find_engine(bundle, "decoder", target="sm89", shapes=SHAPES)
    assert list(cache.iterdir()) == []


def test_what_a_graph_gives_is_held_against_the_manifest(rtx: ModuleType, tmp_path: Path) -> None:
    toy = Bundle.load(write_toy(tmp_path / "toy"))
    encoder = toy.graph("encoder")
    wrong = encoder.outputs[0].model_copy(update={"axes": ("B", 2, 4, "h", "w")})
    graphs = (encoder.model_copy(update={"outputs": (wrong,)}), toy.graph("decoder"))
    write_manifest(toy.folder, toy.manifest.model_copy(update={"graphs": graphs}))
    with pytest.raises(BundleError, match=r"encoder\.onnx has the output 'features' float32 \(.*3.*says .*4"):
        compile_bundle(Bundle.load(toy.folder), shapes=SHAPES, targets=("sm89",))
    assert not list(toy.folder.glob("*.engine"))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "feature"},
        {"dtype": "float16"},
        {"axes": ("?", 2, 3, "?")},
        {"axes": ("?", 2, 4, "?", "?")},
        {"axes": (1, 2, 3, "?", "?")},
        {"axes": ("?", 2, "?", "?", "?")},
        None,
    ],
    ids=str,
)
def test_an_opened_engine_is_held_against_the_manifest(toy: Bundle, changes: dict[str, Any] | None) -> None:
    graph = toy.graph("encoder")
    given = TensorSpec(name="features", dtype="float32", axes=("?", 2, 3, "?", "?"))
    check_tensors([(True, graph.inputs[0]), (False, given)], graph, "The engine")
    others = [] if changes is None else [(False, given.model_copy(update=changes))]
    with pytest.raises(BundleError, match=r"The engine has the output .* manifest says .*: export"):
        check_tensors([(True, graph.inputs[0]), *others], graph, "The engine")


def test_an_engine_tells_its_tensors(toy: Bundle) -> None:
    """By the library's own names, which a machine without a card cannot ask a real engine for."""
    graph = toy.graph("encoder")
    tensors = {"frames": "in", "features": "out"}
    module = SimpleNamespace(TensorIOMode=SimpleNamespace(INPUT="in"), nptype=lambda dtype: dtype)
    engine = SimpleNamespace(
        num_io_tensors=2,
        get_tensor_name=list(tensors).__getitem__,
        get_tensor_mode=tensors.get,
        get_tensor_dtype=lambda name: np.float32,
        get_tensor_shape=lambda name: (-1, 2, 3, -1, -1),
    )
    check_engine(engine, module, graph, "a.engine")  # type: ignore[arg-type]
    tensors["features"] = "in"
    with pytest.raises(BundleError, match=r"a\.engine has the output no 'features'|has the input 'features'"):
        check_engine(engine, module, graph, "a.engine")  # type: ignore[arg-type]


def test_the_cache_builds_once(rtx: ModuleType, toy: Bundle, cache: Path, builds: list[str]) -> None:
    said: list[str] = []

    def find(role: Any = "encoder", **options: Any) -> Path:
        return find_engine(toy, role, say=said.append, **{"target": "sm89", "shapes": SHAPES, **options})

    first = find()
    assert find() == first
    assert first.is_relative_to(cache)
    assert builds == ["sm89"]
    others = [find("decoder"), find(target="sm80"), find(precision="fp16"), find(shapes={**SHAPES, "h": (16, 16, 16)})]
    assert len({first, *others}) == 5
    assert len(builds) == 5
    assert said == []
    assert not [name for name in files(cache) if name.startswith(".")]


def edit(entry: Path, **changes: Any) -> None:
    path = entry / "engine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def truncate(entry: Path) -> None:
    path = entry / "network.engine"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (truncate, "is damaged and is built again"),
        (lambda entry: (entry / "network.engine").unlink(), "cannot be read"),
        (lambda entry: (entry / "engine.json").write_text("{"), "has a damaged record"),
        (lambda entry: (entry / "engine.json").unlink(), "has no record"),
        (lambda entry: edit(entry, graph_sha256="0" * 64), "was built from another graph"),
        (lambda entry: edit(entry, version="0.9"), "was built by tensorrt-rtx 0.9, where"),
        (lambda entry: edit(entry, lowering=0), "was built by another version of stvsr"),
        (lambda entry: edit(entry, target="sm75"), "is the encoder for sm75 in fp32"),
        (lambda entry: edit(entry, precision="fp16"), "in fp16"),
        (lambda entry: edit(entry, shapes={"B": [1, 1, 1], "h": [16, 24, 64], "w": [16, 40, 80]}), "takes other sizes"),
    ],
)
def test_an_engine_that_is_no_good_is_built_again(
    rtx: ModuleType, toy: Bundle, cache: Path, builds: list[str], harm: Callable[[Path], None], sentence: str
) -> None:
    said: list[str] = []
    first = find_engine(toy, "encoder", target="sm89", shapes=SHAPES, say=said.append)
    harm(first.parent)
    for _ in range(2):
        assert find_engine(toy, "encoder", target="sm89", shapes=SHAPES, say=said.append) == first
    assert len(builds) == 2
    assert len(said) == 1
    assert sentence in said[0]
    assert files(cache) == [f"{first.parent.name}/engine.json", f"{first.parent.name}/network.engine"]


def test_an_engine_beside_the_graphs_comes_first(rtx: ModuleType, toy: Bundle, cache: Path, builds: list[str]) -> None:
    compile_bundle(toy, shapes=SHAPES, targets=("sm80", "sm89"))
    said: list[str] = []

    def find(**options: Any) -> Path:
        compiled = Bundle.load(toy.folder)
        return find_engine(compiled, "encoder", say=said.append, **{"target": "sm89", "shapes": SHAPES, **options})

    beside = toy.folder / "encoder.tensorrt-rtx.sm80-sm89.fp32.engine"
    assert find() == beside
    # It takes all of fewer sizes too, and what matters of sizes that are known is that they fit.
    assert find(shapes={**SHAPES, "h": (24, 24, 32)}) == beside
    assert find(shapes={**SHAPES, "h": (8, 24, 99)}, sizes={"B": 1, "h": 64, "w": 80}) == beside
    assert len(builds) == 2  # of two graphs, each for both cards
    assert said == []
    assert find(sizes={"B": 1, "h": 65, "w": 80}).is_relative_to(cache)
    assert said.pop() == f"The engine {beside} takes other sizes and is not used: compile the bundle again."
    assert find(refit=True, sizes={"B": 1, "h": 64, "w": 80}) != beside
    assert said.pop() == f"The engine {beside} keeps its weights and is not used: compile the bundle again."
    stale = [engine.model_copy(update={"version": "0.9"}) for engine in Bundle.load(toy.folder).manifest.engines]
    write_manifest(toy.folder, toy.manifest.model_copy(update={"engines": tuple(stale)}))
    assert find().is_relative_to(cache)
    assert said == [
        f"The engine {beside} was built by tensorrt-rtx 0.9, where tensorrt-rtx {rtx.__version__} is installed, and is"
        " not used: compile the bundle again."
    ]


def test_a_new_engine_takes_the_sizes_that_are_met(
    rtx: ModuleType, toy: Bundle, cache: Path, builds: list[str]
) -> None:
    def find(height: int) -> Path:
        return find_engine(toy, "encoder", target="sm89", shapes=SHAPES, sizes={"B": 1, "h": height, "w": 80})

    def shapes(path: Path) -> Any:
        return json.loads((path.parent / "engine.json").read_text())["shapes"]["h"]

    assert shapes(find(16)) == [16, 24, 64]
    assert find(64) == find(16)
    assert shapes(find(100)) == [16, 100, 100]
    assert shapes(find(8)) == [8, 8, 64]
    assert len(builds) == 3


def test_two_that_build_at_once_do_not_harm_each_other(
    rtx: ModuleType, toy: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are past their look at the cache, in which lies a damaged engine, before either publishes."""
    first = find_engine(toy, "encoder", target="sm89", shapes=SHAPES)
    truncate(first.parent)
    both = threading.Barrier(2, timeout=60)
    build = compiler.build_engine

    def together(*arguments: Any) -> bytes:
        built = build(*arguments) + threading.current_thread().name.encode()
        both.wait()
        return built

    monkeypatch.setattr(compiler, "build_engine", together)
    found: list[Path] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(find_engine(toy, "encoder", target="sm89", shapes=SHAPES)), name=f"builder{i}"
        )
        for i in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [first, first]
    record = Engine.model_validate_json((first.parent / "engine.json").read_bytes())
    assert record.sha256 == file_sha256(first)
    assert files(cache) == [f"{first.parent.name}/engine.json", f"{first.parent.name}/network.engine"]
    assert [path.name for path in cache.iterdir()] == [first.parent.name]


def test_processes_share_a_cache(rtx: ModuleType, toy: Bundle, cache: Path) -> None:
    code = (
        "from stvsr.engine.contract.bundle import Bundle\n"
        "from stvsr.engine.backends.tensorrt.engines import find_engine\n"
        f"print(find_engine(Bundle.load({str(toy.folder)!r}), 'encoder', target='sm89', shapes={SHAPES!r}))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    results = [process.communicate() for process in running]
    assert {(out.strip(), error) for out, error in results} == {(str(next(cache.glob("*/network.engine"))), "")}
    assert len(list(cache.iterdir())) == 1


def test_the_cache_lies_where_a_user_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STVSR_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "engines"
    monkeypatch.delenv("STVSR_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "stvsr" / "engines"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "stvsr" / "engines"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert cache_folder() == tmp_path / "stvsr" / "engines"


def test_a_folder_that_cannot_be_written_is_named(
    rtx: ModuleType, toy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STVSR_CACHE", str(tmp_path / "file"))
    with pytest.raises(BackendError, match=r"cannot be written to .*file.*STVSR_CACHE"):
        find_engine(toy, "encoder", target="sm89", shapes=SHAPES)


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        ({"height": (16, 24, 64)}, "no free axis 'height': it has B, H, W, h, w"),
        ({"h": (16, 64, 24)}, "'h' cannot go from 16 by 64 to 24"),
        ({"h": (0, 64, 64)}, "'h' cannot go from 0"),
        ({}, r"'B' of encoder\.onnx has no sizes"),
    ],
)
def test_shapes_that_a_bundle_does_not_take(rtx: ModuleType, toy: Bundle, shapes: Any, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        compile_bundle(toy, shapes=shapes)


def test_sizes_are_those_that_the_network_takes(rtx: ModuleType) -> None:
    bundle = find_bundle("videoinr-s")
    with pytest.raises(RequestError, match="'height' cannot be 16, 270 and 720: use multiples of 8 from 16 on"):
        compile_bundle(bundle, shapes={"height": (16, 270, 720)})
    defaults = default_shapes(bundle.manifest)
    assert defaults["height"] == (16, 360, 640)
    assert defaults["target_height"] == (2, 1440, 5120)


def test_axes_with_factors() -> None:
    shapes = {"height": (16, 64, 128)}
    assert axis_range("height", shapes) == (16, 64, 128)
    assert axis_range("4*height", shapes) == (64, 256, 512)
    assert axis_range("height/8", shapes) == (2, 8, 16)
    assert axis_range(3, shapes) == (3, 3, 3)
    with pytest.raises(RequestError, match="multiple of 32"):
        axis_range("height/32", shapes)
    with pytest.raises(RequestError, match="'width' has no sizes"):
        axis_range("width", shapes)


def test_what_cannot_be_had_is_said(rtx: ModuleType, toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"does not build for 'sm61': use one of sm75, .*sm120"):
        compile_bundle(toy, shapes=SHAPES, targets=("sm61",))
    with pytest.raises(BackendError, match="no engine library 'openvino': use tensorrt or tensorrt-rtx"):
        compile_bundle(toy, shapes=SHAPES, library="openvino")  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="TensorRT-RTX takes no plugins: use --library tensorrt"):
        compile_bundle(toy, shapes=SHAPES, plugins=True)
    with pytest.raises(BackendError, match="no precision 'int8': use fp32 or fp16"):
        compile_bundle(toy, shapes=SHAPES, precision="int8")  # type: ignore[arg-type]
    monkeypatch.setattr(tensorrt, "local_target", lambda: "sm90")
    with pytest.raises(BackendError, match="GPU of this machine alone, which is sm90: build for sm89"):
        check_target("sm89", "tensorrt")
    check_target("sm90", "tensorrt")
    monkeypatch.setattr(tensorrt, "local_target", lambda: None)
    with pytest.raises(BackendError, match="there is no CUDA device"):
        check_target("sm89", "tensorrt")


@pytest.mark.parametrize("library", ["tensorrt", "tensorrt-rtx"])
def test_without_its_library_the_remedy_is_named(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=rf'cannot be imported .*pip install "stvsr\[{library}\]"'):
        load_library(library)


def test_the_terminal_stays_clean(rtx: ModuleType, tmp_path: Path) -> None:
    folder = unbuildable(tmp_path / "bundle").folder
    code = (
        "from stvsr.engine.contract.bundle import Bundle\n"
        "from stvsr.engine.backends.tensorrt.engines import compile_bundle\n"
        "from stvsr.engine.contract.errors import BackendError\n"
        f"try: compile_bundle(Bundle.load({str(folder)!r}), shapes={SHAPES!r})\n"
        "except BackendError: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
