"""The C++ parsers of manifests and JSON, and SHA-256."""

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.cpp_host import (
    Programs,
    edit_manifest,
    error_of,
    random_clip,
    run,
    upscale_with_cpp,
    upscale_with_python,
)


def changed(*path: str | int, value: Any = None, remove: bool = False) -> Callable[[Any], None]:
    """Return a function that sets or removes a field of a manifest."""

    def change(manifest: Any) -> None:
        for part in path[:-1]:
            manifest = manifest[part]
        if remove:
            del manifest[path[-1]]
        else:
            manifest[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("format", value=2), " is of format 2, and this stvsr reads up to 1: update stvsr."),
        (changed("format", value=0), "format: expected 1; export the bundle again."),
        (changed("format", value="1"), "format: expected an integer"),
        (changed("format", remove=True), "format: missing field"),
        (changed("colour", value=1), "colour: unknown field"),
        (changed("licence", remove=True), "licence: missing field"),
        (changed("name", value=3), "name: expected a string"),
        (changed("architecture", "config", value=[]), "architecture.config: expected an object"),
        (changed("architecture", "more", value=[]), "architecture.more: unknown field"),
        (changed("graphs", value={}), "graphs: expected a list"),
        (
            changed("graphs", 0, "role", value="head"),
            "graphs.0.role: expected 'encoder', 'refiner', 'decoder', 'integer_decoder' or 'network'",
        ),
        (changed("graphs", 0, "role", value="encoder"), "a window of kind 'sliding' takes the graph network"),
        (changed("graphs", 0, "file", value="../x"), "graphs.0.file: expected a bare file name"),
        (changed("graphs", 0, "file", value=".x"), "graphs.0.file: expected a bare file name"),
        (changed("graphs", 0, "sha256", value="0" * 63), "graphs.0.sha256: expected a SHA-256 in hex"),
        (changed("graphs", 0, "inputs", 0, "axes", 1, value=1.5), "graphs.0.inputs.0.axes.1: expected a string"),
        (changed("graphs", 0, "outputs", 0, "kind", value=1), "graphs.0.outputs.0.kind: unknown field"),
        (changed("window", "kind", value="single"), "window.kind: expected 'pair', 'run', 'sliding' or 'doubled'"),
        (changed("window", "frames", value=0), "window.frames: expected an integer of at least 1"),
        (changed("window", "frames", value=4), "a sliding window has an odd number of frames"),
        (
            changed("window", "padding", value="zero"),
            "window.padding: expected 'replicate', 'reflection' or 'reflection_circle'",
        ),
        (changed("window", "overlap", value=1), "window.overlap: unknown field"),
        (changed("window", value={"kind": "pair", "frames": 3}), "window.frames: expected 2"),
        (changed("window", value={"kind": "pair", "frames": 2}), "takes the graphs decoder and encoder"),
        (
            changed("window", value={"kind": "run", "frames": 3}),
            "a window of kind 'run' does not support the time factors (x1)",
        ),
        (
            changed("time", value={"kind": "continuous"}),
            "a window of kind 'sliding' does not support the time factors (any)",
        ),
        (changed("time", "factors", value=[]), "time.factors: expected a list of at least 1 item"),
        (changed("space", "factors", 0, value=0), "space.factors.0: expected an integer of at least 1"),
        (
            changed("space", value={"kind": "continuous", "minimum": 0, "maximum": 1}),
            "space.minimum: expected a number above 0",
        ),
        (
            changed("space", value={"kind": "continuous", "minimum": 2, "maximum": 1}),
            "the smallest space factor is larger than the largest",
        ),
        (changed("value_range", value=[1, 1]), "the value range is empty"),
        (changed("value_range", value=[1]), "value_range: expected a list of 2 items"),
        (changed("value_range", 0, value="0"), "value_range.0: expected a number"),
        (changed("channel_order", value="BGR"), "channel_order: expected 'RGB'"),
        (changed("size", "minimum", value=0), "size.minimum: expected an integer of at least 1"),
        (changed("halo_px", value=-1), "halo_px: expected an integer of at least 0"),
        (changed("halo_px", remove=True), "halo_px: missing field"),
        (changed("training", value=None), "training: expected an object"),
        (
            changed("flows", value=[{"name": "flow", "pairs": [[0, 3]], "method": "dis"}]),
            "the flows 'flow' use frames outside the window of 3",
        ),
        (
            changed("flows", value=[{"name": "flow", "pairs": [], "method": "dis"}]),
            "flows.0.pairs: expected a list of at least 1 item",
        ),
        (
            changed("flows", value=[{"name": "flow", "pairs": [[0, 1]], "method": "dis", "unit": "metres"}]),
            "flows.0.unit: expected 'input pixels'",
        ),
        (changed("engines", 0, "target", value="89"), "engines.0.target: expected a compute capability such as 'sm89'"),
        (changed("engines", 0, "precision", value="int8"), "engines.0.precision: expected 'fp32', 'tf32' or 'fp16'"),
        (changed("engines", 0, "library", value="onnx"), "engines.0.library: expected 'tensorrt' or 'tensorrt-rtx'"),
        (
            changed("engines", 0, "shapes", "height", value=[1, 2]),
            "engines.0.shapes.height: expected a list of 3 items",
        ),
        (changed("engines", 0, "note", value=""), "engines.0.note: unknown field"),
    ],
)
def test_invalid_manifests_are_refused(
    programs: Programs, toy: Path, change: Callable[[Any], None], message: str
) -> None:
    edit_manifest(toy, change)
    error = error_of(programs, toy / "engines")
    assert error.startswith(str(toy / "engines/manifest.json"))
    assert message in error


def test_optional_fields_may_be_missing(programs: Programs, toy: Path) -> None:
    """As in Python, flows and the parts of the size constraint may be missing, and a halo may be null or a number."""
    frames = random_clip(2, (4, 4), "rgb24")
    edit_manifest(toy, changed("flows", remove=True))
    edit_manifest(toy, changed("size", value={}))
    edit_manifest(toy, changed("halo_px", value=7))
    expected = upscale_with_python(toy, frames, (8, 8), 1)
    np.testing.assert_array_equal(upscale_with_cpp(programs, toy, frames), expected.ravel())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1: expected a value"),
        ('{\n "a": 1,\n "é": é}', "line 3, column 7: expected a value"),
        ('{"a": 1} x', "line 1, column 10: unexpected text after the value"),
        ("[1 2]", "line 1, column 4: expected ',' or ']'"),
        ('{"a": 1, "a": 2}', "line 1, column 10: duplicate name 'a'"),
        ("[NaN]", "line 1, column 2: expected a value"),
    ],
)
def test_manifests_with_invalid_json_are_refused(programs: Programs, toy: Path, text: str, message: str) -> None:
    path = toy / "engines/manifest.json"
    path.write_text(text)
    error = error_of(programs, toy / "engines")
    assert error == f"{path} is not valid JSON ({message}); restore the file or export the bundle again.\n"


def test_a_folder_without_a_manifest_is_refused(programs: Programs, tmp_path: Path) -> None:
    error = error_of(programs, tmp_path)
    assert error == (
        f"{tmp_path} is not a bundle: cannot read manifest.json (No such file or directory);"
        " pass the folder of a bundle.\n"
    )


@pytest.fixture(scope="session")
def parse_with_cpp(programs: Programs) -> Iterator[Any]:
    """Return a function that parses a document of one line with the C++ parser, and returns the probe's line."""
    with subprocess.Popen([programs.probe, "json"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def read(document: bytes) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(document + b"\n")
            process.stdin.flush()
            return process.stdout.readline().decode().rstrip("\n")

        yield read
        process.stdin.close()


def probe_form(value: Any) -> Any:
    """Return a value in the form that the probe prints: strings in hex, and integers beyond 64 bits as floats."""
    if isinstance(value, dict):
        return {name.encode().hex(): probe_form(item) for name, item in value.items()}
    if isinstance(value, list):
        return [probe_form(item) for item in value]
    if isinstance(value, str):
        return value.encode().hex()
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if is_integer and not -(2**63) <= value < 2**63 else value


def typed(value: Any) -> Any:
    """Return a form of a value whose comparison distinguishes 1, 1.0 and True, and 0.0 and -0.0."""
    if isinstance(value, dict):
        return {name: typed(item) for name, item in value.items()}
    return [typed(item) for item in value] if isinstance(value, list) else (type(value), repr(value))


scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]))
documents = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=20,
)


@settings(deadline=None, max_examples=300)
@given(value=documents, ascii=st.booleans(), spaces=st.booleans())
@example(
    value=['\U0001f600\u007f\x00"\\/', {"": {}}, [], -0.0, 5e-324, 1.7976931348623157e308], ascii=True, spaces=True
)
def test_json_written_by_python_is_parsed_to_the_same_value(
    parse_with_cpp: Any, value: Any, ascii: bool, spaces: bool
) -> None:
    document = json.dumps(value, ensure_ascii=ascii, separators=(" , ", "\t:\r ") if spaces else (",", ":"))
    assert typed(json.loads(parse_with_cpp(document.encode()))) == typed(probe_form(value))


@settings(deadline=None, max_examples=300)
@given(document=st.binary(max_size=12) | st.text('[]{}",:\\u01a.eE+-truefalsn ', max_size=12).map(str.encode))
@example(document=b'"\\ud800"')
@example(document=b"[01]")
@example(document=b"1.")
@example(document=b"[1,]")
def test_json_that_python_refuses_is_refused(parse_with_cpp: Any, document: bytes) -> None:
    if b"\n" in document:
        return
    line = parse_with_cpp(document)
    try:
        value = json.loads(document.decode(), parse_constant=float.fromhex)
        dumped = json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        assert line.startswith("error: line 1, column ")
        return
    if line.startswith("error"):  # the C++ parser also refuses duplicate names and numbers that are not finite
        assert "duplicate name" in line or b"NaN" in dumped or b"Infinity" in dumped
    else:
        assert typed(json.loads(line)) == typed(probe_form(value))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b'"\\ud800"', "column 2: invalid escape"),
        (b'"\\ud800\\u0041"', "column 2: invalid escape"),
        (b'"\\udc00"', "column 2: invalid escape"),
        (b'"\\u12"', "column 2: invalid escape"),
        (b'"\\x"', "column 2: invalid escape"),
        (b'"a\tb"', "column 3: control characters in a string must be escaped"),
        (b'"abc', "column 5: unterminated string"),
        (b'"\xff"', "column 2: invalid UTF-8"),
        (b'"\xc0\x80"', "column 2: invalid UTF-8"),
        (b'"\xed\xa0\x80"', "column 2: invalid UTF-8"),
        (b'"\xf4\x90\x80\x80"', "column 2: invalid UTF-8"),
        (b'"\xe2\x82', "column 2: invalid UTF-8"),
        (b"1e999", "column 1: the number is too large"),
        (b"-", "column 2: expected a digit"),
        (b"01", "column 2: unexpected text after the value"),
        (b"{1: 2}", "column 2: expected a name in quotes"),
        (b'{"a" 2}', "column 6: expected ':'"),
        (b'{"a": 2 "b"}', "column 9: expected ',' or '}'"),
        (b"[" * 200, "column 130: arrays and objects are nested too deeply"),
    ],
)
def test_json_errors_have_a_position(parse_with_cpp: Any, document: bytes, message: str) -> None:
    assert parse_with_cpp(document) == f"error: line 1, {message}"


@pytest.mark.parametrize("length", [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 100_003])
def test_sha256_equals_hashlib(programs: Programs, length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    assert run(programs.probe, "sha256", data=data).stdout.decode() == hashlib.sha256(data).hexdigest()
