"""find_engine: engines from the bundle or the cache, which are built once, checked, and never half written."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from stvsr import BackendError, Bundle
from stvsr.engine.backends.tensorrt import engines
from stvsr.engine.backends.tensorrt.engines import compile_bundle, find_engine
from stvsr.engine.contract.bundle import file_sha256, write_manifest
from stvsr.engine.contract.manifest import Engine

from tests.support.toy_engines import SHAPES, files_in


def test_the_cache_builds_once(rtx: ModuleType, toy: Bundle, cache: Path, builds: list[str]) -> None:
    warnings: list[str] = []

    def find(role: Any = "encoder", **options: Any) -> Path:
        return find_engine(toy, role, warn=warnings.append, **{"target": "sm89", "shapes": SHAPES, **options})

    first = find()
    assert find() == first
    assert first.is_relative_to(cache)
    assert builds == ["sm89"]
    others = [find("decoder"), find(target="sm80"), find(precision="fp16"), find(shapes={**SHAPES, "h": (16, 16, 16)})]
    assert len({first, *others}) == 5
    assert len(builds) == 5
    assert warnings == []
    assert not [name for name in files_in(cache) if name.startswith(".")]


def edit_record(entry: Path, **changes: Any) -> None:
    path = entry / "engine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def truncate(entry: Path) -> None:
    path = entry / "network.engine"
    path.write_bytes(path.read_bytes()[:-100])


SMALLER_SHAPES = {"B": [1, 1, 1], "h": [16, 24, 64], "w": [16, 40, 80]}


@pytest.mark.parametrize(
    ("damage", "warning"),
    [
        pytest.param(truncate, "is damaged and is built again", id="truncated engine"),
        pytest.param(lambda entry: (entry / "network.engine").unlink(), "cannot be read", id="no engine"),
        pytest.param(lambda entry: (entry / "engine.json").write_text("{"), "has a damaged record", id="bad record"),
        pytest.param(lambda entry: (entry / "engine.json").unlink(), "has no record", id="no record"),
        pytest.param(lambda entry: edit_record(entry, graph_sha256="0" * 64), "from another graph", id="graph"),
        pytest.param(
            lambda entry: edit_record(entry, version="0.9"), "was built by tensorrt-rtx 0.9, but", id="version"
        ),
        pytest.param(lambda entry: edit_record(entry, lowering=0), "by another version of stvsr", id="lowering"),
        pytest.param(lambda entry: edit_record(entry, target="sm75"), "is the encoder for sm75 in fp32", id="target"),
        pytest.param(lambda entry: edit_record(entry, precision="fp16"), "in fp16", id="precision"),
        pytest.param(lambda entry: edit_record(entry, shapes=SMALLER_SHAPES), "takes other sizes", id="shapes"),
    ],
)
def test_an_entry_that_does_not_fit_is_built_again(
    rtx: ModuleType, toy: Bundle, cache: Path, builds: list[str], damage: Callable[[Path], None], warning: str
) -> None:
    warnings: list[str] = []
    first = find_engine(toy, "encoder", target="sm89", shapes=SHAPES, warn=warnings.append)
    damage(first.parent)
    for _ in range(2):
        assert find_engine(toy, "encoder", target="sm89", shapes=SHAPES, warn=warnings.append) == first
    assert len(builds) == 2
    assert len(warnings) == 1
    assert warning in warnings[0]
    assert files_in(cache) == [f"{first.parent.name}/engine.json", f"{first.parent.name}/network.engine"]


def test_an_engine_of_the_bundle_is_preferred(rtx: ModuleType, toy: Bundle, cache: Path, builds: list[str]) -> None:
    compile_bundle(toy, shapes=SHAPES, targets=("sm80", "sm89"))
    warnings: list[str] = []

    def find(**options: Any) -> Path:
        compiled = Bundle.load(toy.folder)
        return find_engine(compiled, "encoder", warn=warnings.append, **{"target": "sm89", "shapes": SHAPES, **options})

    compiled = toy.folder / "encoder.tensorrt-rtx.sm80-sm89.fp32.engine"
    assert find() == compiled
    # It also serves requests for fewer sizes, and if the sizes are known, only those have to fit.
    assert find(shapes={**SHAPES, "h": (24, 24, 32)}) == compiled
    assert find(shapes={**SHAPES, "h": (8, 24, 99)}, sizes={"B": 1, "h": 64, "w": 80}) == compiled
    assert len(builds) == 2  # for two graphs, each for both targets
    assert warnings == []
    assert find(sizes={"B": 1, "h": 65, "w": 80}).is_relative_to(cache)
    assert warnings.pop() == f"The engine {compiled} takes other sizes and is not used: compile the bundle again."
    assert find(refit=True, sizes={"B": 1, "h": 64, "w": 80}) != compiled
    assert warnings.pop() == (
        f"The engine {compiled} was built without --refit and is not used: compile the bundle again."
    )
    stale = [engine.model_copy(update={"version": "0.9"}) for engine in Bundle.load(toy.folder).manifest.engines]
    write_manifest(toy.folder, toy.manifest.model_copy(update={"engines": tuple(stale)}))
    assert find().is_relative_to(cache)
    assert warnings == [
        f"The engine {compiled} was built by tensorrt-rtx 0.9, but tensorrt-rtx {rtx.__version__} is installed, and is"
        " not used: compile the bundle again."
    ]


def test_a_new_engine_takes_the_requested_sizes(rtx: ModuleType, toy: Bundle, cache: Path, builds: list[str]) -> None:
    def find(height: int) -> Path:
        return find_engine(toy, "encoder", target="sm89", shapes=SHAPES, sizes={"B": 1, "h": height, "w": 80})

    def heights(path: Path) -> Any:
        return json.loads((path.parent / "engine.json").read_text())["shapes"]["h"]

    assert heights(find(16)) == [16, 24, 64]
    assert find(64) == find(16)
    assert heights(find(100)) == [16, 100, 100]
    assert heights(find(8)) == [8, 8, 64]
    assert len(builds) == 3


def test_two_threads_may_build_the_same_engine(
    rtx: ModuleType, toy: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have found a damaged entry before either publishes its engine."""
    first = find_engine(toy, "encoder", target="sm89", shapes=SHAPES)
    truncate(first.parent)
    both = threading.Barrier(2, timeout=60)
    build = engines.build_engine

    def build_together(*arguments: Any) -> bytes:
        engine = build(*arguments) + threading.current_thread().name.encode()
        both.wait()
        return engine

    monkeypatch.setattr(engines, "build_engine", build_together)
    paths: list[Path] = []
    threads = [
        threading.Thread(
            target=lambda: paths.append(find_engine(toy, "encoder", target="sm89", shapes=SHAPES)), name=f"builder{i}"
        )
        for i in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [first, first]
    record = Engine.model_validate_json((first.parent / "engine.json").read_bytes())
    assert record.sha256 == file_sha256(first)
    assert files_in(cache) == [f"{first.parent.name}/engine.json", f"{first.parent.name}/network.engine"]
    assert [path.name for path in cache.iterdir()] == [first.parent.name]


def test_processes_share_a_cache(rtx: ModuleType, toy: Bundle, cache: Path) -> None:
    code = (
        "from stvsr import Bundle\n"
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


def test_a_cache_that_cannot_be_written_is_named(
    rtx: ModuleType, toy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STVSR_CACHE", str(tmp_path / "file"))
    with pytest.raises(BackendError, match=r"cannot be written to .*file.*STVSR_CACHE"):
        find_engine(toy, "encoder", target="sm89", shapes=SHAPES)
