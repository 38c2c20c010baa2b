"""The room table of CONTRIBUTING.md, held against every import of the package."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import stvsr

ROOT = Path(stvsr.__file__).parent
FOLDERS = ("cli", "engine", "kernels", "export", "training")
KERNELS_LIBRARIES = {"numpy", "cupy", *sys.stdlib_module_names}
CONTRACT_LIBRARIES = {"numpy", "pydantic", *sys.stdlib_module_names}


@dataclass(frozen=True)
class Room:
    """A row of the table."""

    may_import: frozenset[str]
    never: frozenset[str]  # libraries


def room_table() -> dict[str, Room]:
    """Parse the table of CONTRIBUTING.md."""
    rows = re.findall(r"^\| `([\w.]+)` \|[^|]*\|([^|]*)\|([^|]*)\|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    return {
        name: Room(frozenset(re.findall(r"`([\w.]+)`", imports)), frozenset(re.findall(r"\w+", never)))
        for name, imports, never in rows
    }


TABLE = room_table()


def room_of(module: str) -> str | None:
    """Return the room of a module of the package, None for a module outside every room (the command line)."""
    return next((room for room in TABLE if module == room or module.startswith(f"{room}.")), None)


def package_files() -> list[Path]:
    return sorted([*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))])


def imports(source: str, path: tuple[str, ...]) -> Iterator[tuple[str, bool, int]]:
    """Yield (module, whether it runs on import, line) of each import; relative ones are resolved to stvsr.*.

    `path` is the module's own, such as ("engine", "media", "reader"); a package's file counts as a module in it.
    """
    tree = ast.parse(source)
    inner = {node for top in ast.walk(tree) if _runs_later(top) for node in ast.walk(top)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node not in inner, node.lineno
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                yield node.module or "", node not in inner, node.lineno
                continue
            package = ("stvsr", *path)[: -node.level]
            assert package, f"line {node.lineno} leaves the package"
            for alias in node.names:
                module = (*package, node.module) if node.module else (*package, alias.name)
                yield ".".join(module), node not in inner, node.lineno


def _runs_later(node: ast.AST) -> bool:
    """Return whether the body of a node is not executed on import: a function, or a block for type checkers."""
    checks_types = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.FunctionDef) or checks_types


def violations(source: str, path: tuple[str, ...]) -> list[str]:
    """Return a sentence for each import that the table forbids."""
    room = room_of(".".join(path))
    found = []
    for module, at_top, line in imports(source, path):
        where = f"{'/'.join(path)}.py:{line}: "
        library, _, inside = module.partition(".")
        if library != "stvsr":
            allowed = {"kernels": KERNELS_LIBRARIES, "engine.contract": CONTRACT_LIBRARIES}.get(room or "")
            if room and (library in TABLE[room].never or (allowed and library not in allowed)):
                found.append(f"{where}{room} must not import {library}")
            continue
        other = room_of(inside)
        if room and other != room and other not in TABLE[room].may_import:
            found.append(f"{where}{room} must not import {other or inside}")
        if not room and at_top and other in ("export", "training"):
            found.append(f"{where}the command line imports {other} only inside functions")
    return found


def absolute_imports(source: str, path: tuple[str, ...]) -> list[str]:
    return [
        f"{'/'.join(path)}.py:{node.lineno}"
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "stvsr")
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "stvsr" for alias in node.names))
    ]


def module_path(path: Path) -> tuple[str, ...]:
    return path.relative_to(ROOT).with_suffix("").parts


def test_the_table_names_every_room() -> None:
    engine = {
        f"engine.{room}" for room in ("contract", "media", "backends", "pipeline", "compare", "benchmark", "serving")
    }
    names = {*engine, "kernels", "training", "export"}
    assert set(TABLE) == names
    assert TABLE["engine.contract"].may_import == frozenset()
    assert TABLE["training"].may_import == {"engine.contract"}
    folders = {path.name for path in (ROOT / "engine").iterdir() if (path / "__init__.py").exists()}
    assert {f"engine.{name}" for name in folders} <= names


def test_rooms_import_only_what_the_table_allows() -> None:
    files = package_files()
    assert len(files) > 100
    assert [line for path in files for line in violations(path.read_text(), module_path(path))] == []


def test_no_circle_connects_rooms() -> None:
    def reachable(room: str) -> set[str]:
        direct = TABLE[room].may_import
        return set(direct).union(*(reachable(other) for other in direct))

    for room in TABLE:
        assert room not in reachable(room)


def test_imports_inside_the_package_are_relative() -> None:
    assert [line for path in package_files() for line in absolute_imports(path.read_text(), module_path(path))] == []


def test_no_test_imports_another_test() -> None:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for module, _, line in imports(path.read_text(), module_path(path)):
            leaf = module.rpartition(".")[2]
            assert not leaf.startswith("test_"), f"{path.relative_to(ROOT)}:{line} imports {module}"


@pytest.mark.parametrize(
    ("source", "path", "count"),
    [
        ("import torch", ("engine", "pipeline", "x"), 1),
        ("def f():\n    import torch.nn", ("engine", "backends", "x"), 1),
        ("from torch import nn", ("kernels", "x"), 1),
        ("from ...training import losses", ("engine", "pipeline", "x"), 1),
        ("from ... import training", ("engine", "pipeline", "x"), 1),
        ("from ...kernels.warp import warp", ("engine", "backends", "x"), 0),
        ("from ....kernels.warp import warp", ("engine", "backends", "tensorrt", "x"), 0),
        ("from ...kernels.warp import warp", ("engine", "media", "x"), 1),
        ("from . import session", ("engine", "backends", "x"), 0),
        ("from .session import Session", ("engine", "backends", "__init__"), 0),
        ("from ..backends.graphs import open_graphs", ("engine", "pipeline", "x"), 0),
        ("from ..pipeline.run import upscale", ("engine", "backends", "x"), 1),
        ("from ..media.frame import Frame", ("engine", "contract", "x"), 1),
        ("import av", ("engine", "contract", "x"), 1),
        ("import pydantic, numpy, json", ("engine", "contract", "x"), 0),
        ("from ..engine.contract import bundle", ("kernels", "x"), 1),
        ("import onnxruntime", ("kernels", "x"), 1),
        ("import math, numpy, cupy.cuda", ("kernels", "x"), 0),
        ("from ..engine.contract.bundle import Bundle\nfrom ..training.resize import imresize", ("export", "x"), 0),
        ("from ..kernels import warp", ("export", "x"), 1),
        ("from ..engine.contract.manifest import Window", ("training", "x"), 0),
        ("from ...engine.contract.manifest import Window", ("training", "networks", "x"), 0),
        ("from ..engine.pipeline.flow import picture_flow", ("training", "x"), 1),
        ("from ..cli import app", ("training", "x"), 1),
        ("from ..export import graph", ("cli", "x"), 1),
        ("def f():\n    from ..export import graph", ("cli", "x"), 0),
        ("from ..engine.pipeline.run import upscale", ("cli", "x"), 0),
    ],
)
def test_forbidden_imports_are_found(source: str, path: tuple[str, ...], count: int) -> None:
    assert len(violations(source, path)) == count


def test_absolute_imports_are_found() -> None:
    assert absolute_imports("from stvsr.engine import bundle\nimport stvsr\nimport os", ("cli", "x")) == [
        "cli/x.py:1",
        "cli/x.py:2",
    ]


def test_engine_kernels_and_command_line_import_without_pytorch() -> None:
    modules = [".".join(("stvsr", *module_path(path))) for path in package_files()]
    modules = [name for name in modules if name.split(".")[1] not in ("export", "training")]
    modules = [name.removesuffix(".__init__") for name in modules if not name.endswith("__main__")]
    code = f"import importlib, sys\nsys.modules['torch'] = None\nfor name in {modules}: importlib.import_module(name)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")
