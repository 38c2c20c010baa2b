"""Cases of wrong manifests, files, names, graphs and engines of a bundle."""

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tests.torture.case import GIB, Case, Expectation, Result, Room
from tests.torture.graphs import external_graph, write_external, wrong_graphs
from tests.torture.path_cases import escaped

Manifest = dict[str, Any]
_GONE = object()
_RUN = ["upscale", "{shared}/tiny.mp4", "-o", "{out}/out.mp4", "-m", "{in}/b", "-s", "1", "-t", "2", "--threads", "1"]
_JSON = [*_RUN, "--json"]
_KEYS = ("format", "name", "architecture", "graphs", "engines", "window", "flows", "space", "time", "value_range")
_MORE_KEYS = ("channel_order", "size", "halo_px", "training", "scores", "licence")
_OPTIONAL = {"engines", "flows"}
_VALUES: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "format-2": (("format",), 2),
    "format-true": (("format",), True),
    "format-float": (("format",), 1.0),
    "format-text": (("format",), "1"),
    "format-huge": (("format",), 10**30),
    "extra": (("evil",), 1),
    "min-0": (("size", "minimum"), 0),
    "min-neg": (("size", "minimum"), -8),
    "mult-0": (("size", "multiple_of"), 0),
    "halo-neg": (("halo_px",), -1),
    "range-reversed": (("value_range",), [1.0, 0.0]),
    "range-empty": (("value_range",), [0.0, 0.0]),
    "space-reversed": (("space",), {"kind": "continuous", "minimum": 4.0, "maximum": 1.0}),
    "space-neg": (("space", "minimum"), -1.0),
    "window-frames": (("window", "frames"), 3),
    "window-kind": (("window", "kind"), "evil"),
    "roles": (("graphs", 0, "role"), "decoder"),
    "sha-short": (("graphs", 0, "sha256"), "00"),
    "sha-other": (("graphs", 0, "sha256"), "0" * 64),
    "graphs-none": (("graphs",), []),
    "axes-wrong": (("graphs", 0, "inputs", 0, "axes"), ["B", 9]),
    "inputs-none": (("graphs", 0, "inputs"), []),
}
_ABSURD: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "min-1e9": (("size", "minimum"), 10**9),
    "min-1e30": (("size", "minimum"), 10**30),
    "min-60000": (("size", "minimum"), 60000),
    "min-4096": (("size", "minimum"), 4096),  # the largest that is allowed
    "mult-1e9": (("size", "multiple_of"), 10**9),
    "halo-1e9": (("halo_px",), 10**9),
    "range-1e308": (("value_range",), [0.0, 1e308]),
    "range-tiny": (("value_range",), [0.0, 5e-324]),
    "space-1e308": (("space", "maximum"), 1e308),
}


def bundle_cases() -> Iterator[Case]:
    """Yield the cases."""
    yield from _manifest_cases()
    yield from _text_cases()
    yield from _file_cases()
    yield from _graph_cases()
    yield from _engine_cases()


def put(path: tuple[str | int, ...], value: Any) -> Callable[[Path, Manifest], None]:
    """Return a function that sets a field of a manifest, or removes it."""

    def change(folder: Path, manifest: Manifest) -> None:
        at: Any = manifest
        for step in path[:-1]:
            at = at[step]
        if value is _GONE:
            at.pop(path[-1], None)
        else:
            at[path[-1]] = value

    return change


def case(
    name: str,
    change: Callable[[Path, Manifest], object] | None = None,
    expect: Expectation = "refuse",
    *,
    text: Callable[[Path, Manifest], object] | None = None,
    args: list[str] | None = None,
    **more: Any,
) -> Case:
    """Return a case: `change` edits a bundle's folder and its manifest, `text` writes the manifest's file itself."""

    def make(room: Room) -> None:
        folder = Path(shutil.copytree(room.shared / "toy", room / "in/b"))
        manifest = json.loads((folder / "manifest.json").read_text())
        if change is not None:
            change(folder, manifest)
        if text is not None:
            text(folder / "manifest.json", manifest)
        else:
            (folder / "manifest.json").write_text(json.dumps(manifest))

    args = args or _JSON
    factor = 2 if expect != "refuse" and args[0] == "upscale" else None
    options = {"limits": {"AS": 6 * GIB}, "wall_s": 60, **more}
    return Case(f"bundle.{name}", list(args), expect, make=make, factor=factor, **options)


def _manifest_cases() -> Iterator[Case]:
    for key in (*_KEYS, *_MORE_KEYS):
        yield case(f"missing.{key}", put((key,), _GONE), "any" if key in _OPTIONAL else "refuse")
        listed = key in ("graphs", "engines", "flows", "value_range")
        yield case(f"type.{key}", put((key,), 7 if listed else []))
    for name, (path, value) in _VALUES.items():
        yield case(f"value.{name}", put(path, value))
    for name, (path, value) in _ABSURD.items():
        yield case(f"absurd.{name}", put(path, value), "any", max_mb=2500)
    tiled = [*_RUN, "--tile", "32", "--json"]
    yield case("absurd.tile-halo-1e9", put(("halo_px",), 10**9), "any", args=tiled)
    numbers = {"nan": "NaN", "inf": "Infinity", "1e999": "1e999"}
    for name, number in numbers.items():

        def write(path: Path, manifest: Manifest, number: str = number) -> None:
            manifest["value_range"] = [0.0, "@@"]
            path.write_text(json.dumps(manifest).replace('"@@"', number))

        yield case(f"value.json-{name}", text=write)
    for name, text in {"markup": "a[/b]", "bold": "[bold red]x", "newline": "a\nb", "empty": ""}.items():
        yield case(f"name.{name}", put(("name",), text), "ok", args=_RUN)
    yield case("name.megabyte", put(("name",), "x" * 10**6), "ok", args=_RUN)
    scaled = ["9" if word == "1" and _RUN[n - 1] == "-s" else word for n, word in enumerate(_RUN)]
    yield case("name.escape", put(("name",), "a\x1b[2Jb"), "any", after=escaped, args=scaled)
    info = ["info", "{in}/b"]
    yield case("info.licence-escape", put(("licence",), "MIT\x1b[2J"), "any", args=info, after=escaped)
    yield case("info.licence-markup", put(("licence",), "[/x] \\[red]"), "ok", args=info)


def _text_cases() -> Iterator[Case]:
    def whole(manifest: Manifest) -> bytes:
        return json.dumps(manifest).encode()

    bodies: dict[str, Callable[[Manifest], bytes]] = {
        "empty": lambda m: b"",
        "text": lambda m: b"hello",
        "null": lambda m: b"null",
        "list": lambda m: b"[]",
        "deep": lambda m: b"[" * 200000,
        "deep-object": lambda m: b'{"a":' * 200000,
        "digits": lambda m: whole(m).replace(b'"halo_px": ', b'"halo_px": ' + b"9" * 6000),
        "bom": lambda m: b"\xef\xbb\xbf" + whole(m),
        "utf16": lambda m: json.dumps(m).encode("utf-16"),
        "latin": lambda m: b'{"name": "\xff"}',
        "cut": lambda m: whole(m)[:300],
        "big": lambda m: whole(m) + b" " * (64 << 20),
        "training-deep": lambda m: whole({**m, "training": "@@"}).replace(b'"@@"', b'{"a":' * 900 + b"1" + b"}" * 900),
    }
    for name, body in bodies.items():

        def write(path: Path, manifest: Manifest, body: Callable[[Manifest], bytes] = body) -> None:
            path.write_bytes(body(manifest))

        expect: Expectation = "any" if name in ("bom", "utf16", "big", "training-deep") else "refuse"
        yield case(f"text.{name}", text=write, expect=expect, max_mb=1500)


def _file_cases() -> Iterator[Case]:
    def instead(file: str, make: Callable[[Path], object]) -> Callable[[Path, Manifest], None]:
        def change(folder: Path, manifest: Manifest) -> None:
            path = folder if folder.name == file else folder / file
            path.unlink()
            make(path)

        return change

    endless: dict[str, Any] = {"limits": {"AS": 4 * GIB}, "max_mb": 1500, "wall_s": 30}
    kinds: dict[str, Callable[[Path], object]] = {
        "folder": Path.mkdir,
        "fifo": os.mkfifo,
        "endless": lambda path: path.symlink_to("/dev/zero"),
    }
    for kind, make in kinds.items():
        yield case(f"file.manifest-{kind}", text=instead("manifest.json", make), **endless)
        yield case(f"file.graph-{kind}", instead("encoder.onnx", make), **endless)
    yield case("file.graph-missing", instead("encoder.onnx", lambda path: None))
    names = {"up": "../x.onnx", "up2": "../../in/x.onnx", "dots": "..", "sub": "sub/x.onnx", "backslash": "..\\x.onnx"}
    names |= {
        "hidden": ".x.onnx",
        "newline": "encoder.onnx\n",
        "nul": "encoder.onnx\0",
        "empty": "",
        "long": "x" * 5000,
    }
    for name, file in {**names, "absolute": "@"}.items():

        def outside(folder: Path, manifest: Manifest, file: str = file) -> None:
            shutil.copy(folder / "encoder.onnx", folder.parent / "x.onnx")
            manifest["graphs"][0]["file"] = str(folder.parent / "x.onnx") if file == "@" else file

        yield case(f"path.{name}", outside)

    def linked(folder: Path, manifest: Manifest) -> None:
        (folder / "encoder.onnx").rename(folder.parent / "x.onnx")
        (folder / "encoder.onnx").symlink_to("../x.onnx")

    yield case("path.symlink-graph", linked, "any")


@cache
def _graphs() -> dict[str, bytes]:
    return wrong_graphs()


def swapped(content: Callable[[Path], bytes], state: bool = True) -> Callable[[Path, Manifest], None]:
    """Return a function that replaces the encoder, and states its checksum unless `state` is false."""

    def change(folder: Path, manifest: Manifest) -> None:
        body = content(folder)
        (folder / "encoder.onnx").write_bytes(body)
        if state:
            manifest["graphs"][0]["sha256"] = hashlib.sha256(body).hexdigest()

    return change


_CONTENTS: dict[str, Callable[[Path], bytes]] = {
    "cut": lambda folder: (folder / "encoder.onnx").read_bytes()[:60],
    "cut-1": lambda folder: (folder / "encoder.onnx").read_bytes()[:-1],
    "empty": lambda folder: b"",
    "garbage": lambda folder: bytes(range(256)) * 9,
    "swapped": lambda folder: (folder / "decoder.onnx").read_bytes(),
    "text": lambda folder: b"hello",
}


def _graph_cases() -> Iterator[Case]:
    for name, content in _CONTENTS.items():
        yield case(f"graph.{name}", swapped(content))
    wrong = (
        "renamed_output",
        "renamed_input",
        "int_input",
        "fixed_size",
        "bad_shape",
        "lies_about_shape",
        "unknown_op",
    )
    for name in (*wrong, "huge_alloc", "endless"):
        yield case(f"graph.{name}", swapped(lambda folder, name=name: _graphs()[name]), cpu_s=15)  # type: ignore[misc]

    def names_the_bundle(room: Room, result: Result) -> None:
        if "toy" not in result.err or "fp32" not in result.err or "0.000 s" not in result.err:
            result.fault("expectation", f"bundle, precision and frame are not named: {result.err[-200:]}")

    yield case("graph.nan", swapped(lambda folder: _graphs()["nan"]), after=names_the_bundle)
    limited = [*_JSON, "--time-limit", "2"]
    yield case("graph.nearly_endless", swapped(lambda folder: _graphs()["nearly_endless"]), args=limited, cpu_s=15)
    yield case("graph.tampered", swapped(lambda folder: _graphs()["nan"], state=False))
    external = {
        "beside": ("weights.bin", "weights.bin"),
        "missing": ("weights.bin", ""),
        "up": ("../s.bin", "../s.bin"),
    }
    for name, (location, written) in {**external, "absolute": ("/etc/services", "")}.items():

        def outside(folder: Path, manifest: Manifest, location: str = location, written: str = written) -> None:
            swapped(lambda folder: external_graph(location))(folder, manifest)
            if written:
                write_external(folder, written)

        yield case(f"external.{name}", outside)
    yield case("external.offset-2-62", swapped(lambda folder: external_graph("weights.bin", 2**62)))

    def fifo(folder: Path, manifest: Manifest) -> None:
        swapped(lambda folder: external_graph("weights.bin"))(folder, manifest)
        os.mkfifo(folder / "weights.bin")

    yield case("external.fifo", fifo)


def _engine_cases() -> Iterator[Case]:
    engine: dict[str, Any] = {"role": "encoder", "precision": "fp32", "shapes": {"B": [1, 1, 1]}, "target": "sm89"}
    engine |= {"library": "tensorrt-rtx", "version": "1.7", "lowering": 1, "refit": False, "plugins": False}
    engine |= {"file": "e.engine", "sha256": "0" * 64}
    changes: dict[str, dict[str, Any]] = {
        "ok": {},
        "up": {"file": "../e.engine"},
        "absolute": {"file": "/etc/passwd"},
        "target": {"target": "sm"},
        "library": {"library": "evil.so"},
        "shapes": {"shapes": {"B": [3, 2, 1]}},
    }

    def listed(change: dict[str, Any]) -> Callable[[Path, Manifest], None]:
        def edit(folder: Path, manifest: Manifest) -> None:
            entry = {**copy.deepcopy(engine), "graph_sha256": manifest["graphs"][0]["sha256"], **change}
            manifest["engines"] = [entry]

        return edit

    for name, change in changes.items():
        yield case(f"engine.{name}", listed(change), "any" if name in ("ok", "shapes") else "refuse")
    compile_ = ["compile", "{in}/b", "-o", "{out}/c", "--target", "sm89"]
    yield case("engine.copied", listed({}), args=compile_[:4], limits={})
    for name in ("cut", "garbage"):
        yield case(f"compile.{name}", swapped(_CONTENTS[name]), args=compile_, limits={})
    yield case("compile.unknown-op", swapped(lambda folder: _graphs()["unknown_op"]), args=compile_, limits={})
    yield case("compile.external", swapped(lambda folder: external_graph("../s.bin")), args=compile_, limits={})
    tensorrt = [*_RUN[:-2], "--backend", "tensorrt"]
    yield case("tensorrt-on-cpu", args=tensorrt)
