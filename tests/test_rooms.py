"""The contract of the rooms: who may import whom, over every file, and without torch where torch is not wanted."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import stvsr

ROOT = Path(stvsr.__file__).parent
ROOMS = ("engine", "kernels", "export", "training")

# What a room may import of the other rooms, and which libraries it never does.
MAY_IMPORT = {"engine": {"kernels"}, "kernels": set(), "export": {"training", "engine"}, "training": set()}
NEVER = {"engine": {"torch"}, "kernels": {"torch"}, "export": set(), "training": set()}
KERNELS_LIBRARIES = {"numpy", "cupy", *sys.stdlib_module_names}


def package_files() -> list[Path]:
    return sorted([*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))])


def imports(source: str, path: tuple[str, ...]) -> Iterator[tuple[str, bool, int]]:
    """Yield (module, at module level, line) of each import; relative ones come out as stvsr.*.

    `path` is the module's place: ("engine", "session").
    """
    tree = ast.parse(source)
    inner = {node for top in ast.walk(tree) if isinstance(top, ast.FunctionDef) for node in ast.walk(top)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node not in inner, node.lineno
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                yield node.module or "", node not in inner, node.lineno
                continue
            place = ("stvsr", *path)[: -node.level]
            assert place, f"line {node.lineno} leaves the package"
            for alias in node.names:
                module = (*place, node.module) if node.module else (*place, alias.name)
                yield ".".join(module), node not in inner, node.lineno


def violations(source: str, path: tuple[str, ...]) -> list[str]:
    room = path[0] if len(path) > 1 else ""
    found = []
    for module, at_top, line in imports(source, path):
        where = f"{'/'.join(path)}.py:{line}: "
        library, _, rest = module.partition(".")
        if library == "stvsr":
            other = rest.partition(".")[0]
            if room and other not in (room, *MAY_IMPORT[room]) and other in (*ROOMS, "cli", "__main__"):
                found.append(f"{where}{room} must not import {other}")
            if not room and at_top and other in ("export", "training"):
                found.append(f"{where}the front door imports {other} only where it is used")
        elif room and library in NEVER[room]:
            found.append(f"{where}{room} must not import {library}")
        elif room == "kernels" and library not in KERNELS_LIBRARIES:
            found.append(f"{where}kernels must not import {library}")
    return found


def absolute_imports(source: str, path: tuple[str, ...]) -> list[str]:
    return [
        f"{'/'.join(path)}.py:{node.lineno}"
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "stvsr")
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "stvsr" for alias in node.names))
    ]


def place(path: Path) -> tuple[str, ...]:
    """Return a file's place; a package's own file counts as a module in it, so that one dot means the package."""
    return path.relative_to(ROOT).with_suffix("").parts


def test_rooms_import_only_what_they_may() -> None:
    files = package_files()
    assert len(files) > 10
    assert [line for path in files for line in violations(path.read_text(), place(path))] == []


def test_imports_inside_the_package_are_relative() -> None:
    assert [line for path in package_files() for line in absolute_imports(path.read_text(), place(path))] == []


@pytest.mark.parametrize(
    ("source", "path", "count"),
    [
        ("import torch", ("engine", "x"), 1),
        ("def f():\n    import torch.nn", ("engine", "x"), 1),
        ("from torch import nn", ("kernels", "x"), 1),
        ("from ..training import losses", ("engine", "x"), 1),
        ("from .. import training", ("engine", "x"), 1),
        ("from ..kernels.warp import warp", ("engine", "x"), 0),
        ("from . import session", ("engine", "x"), 0),
        ("from .session import Session", ("engine", "__init__"), 0),
        ("from ..engine import bundle", ("kernels", "x"), 1),
        ("import onnxruntime", ("kernels", "x"), 1),
        ("import math, numpy, cupy.cuda", ("kernels", "x"), 0),
        ("from ..engine.bundle import Bundle\nfrom ..training.nets import Net\nimport torch", ("export", "x"), 0),
        ("from ..kernels import warp", ("export", "x"), 1),
        ("from ..engine.bundle import Bundle", ("training", "x"), 1),
        ("from ..cli import app", ("engine", "x"), 1),
        ("from .export import graph", ("cli",), 1),
        ("def f():\n    from .export import graph", ("cli",), 0),
        ("from .engine.pipeline import upscale", ("cli",), 0),
    ],
)
def test_what_breaks_the_rules_is_found(source: str, path: tuple[str, ...], count: int) -> None:
    assert len(violations(source, path)) == count


def test_absolute_imports_are_found() -> None:
    assert absolute_imports("from stvsr.engine import bundle\nimport stvsr\nimport os", ("cli",)) == [
        "cli.py:1",
        "cli.py:2",
    ]


def test_engine_and_kernels_and_the_front_door_import_without_torch() -> None:
    modules = [
        ".".join(("stvsr", *place(path))) for path in package_files() if place(path)[0] not in ("export", "training")
    ]
    modules = [name.removesuffix(".__init__") for name in modules if not name.endswith("__main__")]
    code = f"import importlib, sys\nsys.modules['torch'] = None\nfor name in {modules}: importlib.import_module(name)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")
