"""What the C++ host reads: manifests, JSON and SHA-256."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.cpp_host import Programs, by_cpp, by_python, call, clip, edit, refusal


def damaged(*path: str | int, value: Any = None, gone: bool = False) -> Any:
    def change(manifest: Any) -> None:
        for part in path[:-1]:
            manifest = manifest[part]
        if gone:
            del manifest[path[-1]]
        else:
            manifest[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damaged("format", value=2), " is of format 2, and this stvsr reads up to 1: update stvsr."),
        (damaged("format", value=0), "format: 1 is expected; export the bundle again."),
        (damaged("format", value="1"), "format: a value that is a whole number is expected"),
        (damaged("format", gone=True), "format: this field is missing"),
        (damaged("colour", value=1), "colour: this field is unknown"),
        (damaged("licence", gone=True), "licence: this field is missing"),
        (damaged("name", value=3), "name: a value that is text is expected"),
        (damaged("architecture", "config", value=[]), "architecture.config: a value that is an object is expected"),
        (damaged("architecture", "more", value=[]), "architecture.more: this field is unknown"),
        (damaged("graphs", value={}), "graphs: a value that is a list is expected"),
        (damaged("graphs", 0, "role", value="head"), "graphs.0.role: 'encoder' or 'decoder' or 'network' is expected"),
        (damaged("graphs", 0, "role", value="encoder"), "a window of this kind takes the graph network"),
        (damaged("graphs", 0, "file", value="../x"), "graphs.0.file: a bare file name is expected"),
        (damaged("graphs", 0, "file", value=".x"), "graphs.0.file: a bare file name is expected"),
        (damaged("graphs", 0, "sha256", value="0" * 63), "graphs.0.sha256: a sha256 in hex is expected"),
        (damaged("graphs", 0, "inputs", 0, "axes", 1, value=1.5), "graphs.0.inputs.0.axes.1: a value that is text is"),
        (damaged("graphs", 0, "outputs", 0, "kind", value=1), "graphs.0.outputs.0.kind: this field is unknown"),
        (damaged("window", "kind", value="single"), "window.kind: 'pair' or 'run' or 'sliding' or 'doubled' is"),
        (damaged("window", "frames", value=0), "window.frames: a whole number from 1 on is expected"),
        (damaged("window", "frames", value=4), "a sliding window has an odd number of frames"),
        (damaged("window", "padding", value="zero"), "window.padding: 'replicate' or 'reflection' or"),
        (damaged("window", "overlap", value=1), "window.overlap: this field is unknown"),
        (damaged("window", value={"kind": "pair", "frames": 3}), "window.frames: 2 is expected"),
        (damaged("window", value={"kind": "pair", "frames": 2}), "takes the graphs decoder and encoder"),
        (damaged("window", value={"kind": "run", "frames": 3}), "the window does not make frames in time by x1"),
        (damaged("time", value={"kind": "continuous"}), "the window does not make frames in time by any"),
        (damaged("time", "factors", value=[]), "time.factors: a list of at least 1 is expected"),
        (damaged("space", "factors", 0, value=0), "space.factors.0: a whole number from 1 on is expected"),
        (
            damaged("space", value={"kind": "continuous", "minimum": 0, "maximum": 1}),
            "space.minimum: a number above 0 is expected",
        ),
        (
            damaged("space", value={"kind": "continuous", "minimum": 2, "maximum": 1}),
            "the smallest space factor is larger than the largest",
        ),
        (damaged("value_range", value=[1, 1]), "the value range is empty"),
        (damaged("value_range", value=[1]), "value_range: a list of 2 is expected"),
        (damaged("value_range", 0, value="0"), "value_range.0: a value that is a number is expected"),
        (damaged("channel_order", value="BGR"), "channel_order: 'RGB' is expected"),
        (damaged("size", "minimum", value=0), "size.minimum: a whole number from 1 on is expected"),
        (damaged("halo_px", value=-1), "halo_px: a whole number from 0 on is expected"),
        (damaged("halo_px", gone=True), "halo_px: this field is missing"),
        (damaged("training", value=None), "training: a value that is an object is expected"),
        (
            damaged("flows", value=[{"name": "flow", "pairs": [[0, 3]], "method": "dis"}]),
            "the flows 'flow' name frames outside the window",
        ),
        (
            damaged("flows", value=[{"name": "flow", "pairs": [], "method": "dis"}]),
            "flows.0.pairs: a list of at least 1 is expected",
        ),
        (
            damaged("flows", value=[{"name": "flow", "pairs": [[0, 1]], "method": "dis", "unit": "metres"}]),
            "flows.0.unit: 'input pixels' is expected",
        ),
        (damaged("engines", 0, "target", value="89"), "engines.0.target: a compute capability such as 'sm89' is"),
        (damaged("engines", 0, "precision", value="int8"), "engines.0.precision: 'fp32' or 'fp16' is expected"),
        (damaged("engines", 0, "library", value="onnx"), "engines.0.library: 'tensorrt' or 'tensorrt-rtx' is expected"),
        (damaged("engines", 0, "shapes", "height", value=[1, 2]), "engines.0.shapes.height: a list of 3 is expected"),
        (damaged("engines", 0, "note", value=""), "engines.0.note: this field is unknown"),
    ],
)
def test_manifests_that_are_not_of_the_format(programs: Programs, toy: Path, change: Any, message: str) -> None:
    edit(toy, change)
    told = refusal(programs, toy / "engines")
    assert told.startswith(str(toy / "engines/manifest.json"))
    assert message in told


def test_what_the_format_lets_out(programs: Programs, toy: Path) -> None:
    """Flows and parts of the size constraint may be missing, as in Python; a halo may be null or a number."""
    frames = clip(2, (4, 4), "rgb24")
    edit(toy, damaged("flows", gone=True))
    edit(toy, damaged("size", value={}))
    edit(toy, damaged("halo_px", value=7))
    expected = by_python(toy, frames, (8, 8), 1)
    np.testing.assert_array_equal(by_cpp(programs, toy, frames), expected.ravel())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1: a value is expected"),
        ('{\n "a": 1,\n "é": é}', "line 3, column 7: a value is expected"),
        ('{"a": 1} x', "line 1, column 10: nothing more is expected"),
        ("[1 2]", "line 1, column 4: a comma or ] is expected"),
        ('{"a": 1, "a": 2}', "line 1, column 10: the name 'a' is repeated"),
        ("[NaN]", "line 1, column 2: a value is expected"),
    ],
)
def test_manifests_that_are_no_json(programs: Programs, toy: Path, text: str, message: str) -> None:
    path = toy / "engines/manifest.json"
    path.write_text(text)
    told = refusal(programs, toy / "engines")
    assert told == f"{path} is not valid JSON ({message}); restore the file or export the bundle again.\n"


def test_a_folder_that_is_no_bundle(programs: Programs, tmp_path: Path) -> None:
    told = refusal(programs, tmp_path)
    assert told == (
        f"{tmp_path} is no bundle: manifest.json cannot be read there (No such file or directory);"
        " name a bundle's folder.\n"
    )


@pytest.fixture(scope="session")
def read_json(programs: Programs) -> Iterator[Any]:
    """What the reader made of a document of one line."""
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


def told(value: Any) -> Any:
    """A value as the probe tells it: text in hex, and whole numbers that a machine's integers do not hold as reals."""
    if isinstance(value, dict):
        return {name.encode().hex(): told(item) for name, item in value.items()}
    if isinstance(value, list):
        return [told(item) for item in value]
    if isinstance(value, str):
        return value.encode().hex()
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and not -(2**63) <= value < 2**63 else value


def typed(value: Any) -> Any:
    """Tell 1 from 1.0 and True, and 0.0 from -0.0."""
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
def test_json_is_read_as_python_wrote_it(read_json: Any, value: Any, ascii: bool, spaces: bool) -> None:
    document = json.dumps(value, ensure_ascii=ascii, separators=(" , ", "\t:\r ") if spaces else (",", ":"))
    assert typed(json.loads(read_json(document.encode()))) == typed(told(value))


@settings(deadline=None, max_examples=300)
@given(document=st.binary(max_size=12) | st.text('[]{}",:\\u01a.eE+-truefalsn ', max_size=12).map(str.encode))
@example(document=b'"\\ud800"')
@example(document=b"[01]")
@example(document=b"1.")
@example(document=b"[1,]")
def test_what_python_refuses_is_refused(read_json: Any, document: bytes) -> None:
    if b"\n" in document:
        return
    found = read_json(document)
    try:
        value = json.loads(document.decode(), parse_constant=float.fromhex)
        dumped = json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        assert found.startswith("error: line 1, column ")
        return
    if found.startswith("error"):  # stricter: what has no meaning that everybody shares
        assert "repeated" in found or b"NaN" in dumped or b"Infinity" in dumped
    else:
        assert typed(json.loads(found)) == typed(told(value))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b'"\\ud800"', "column 2: the escape stands for no character"),
        (b'"\\ud800\\u0041"', "column 2: the escape stands for no character"),
        (b'"\\udc00"', "column 2: the escape stands for no character"),
        (b'"\\u12"', "column 2: the escape stands for no character"),
        (b'"\\x"', "column 2: the escape stands for no character"),
        (b'"a\tb"', "column 3: a control character in text must be escaped"),
        (b'"abc', "column 5: the text does not end"),
        (b'"\xff"', "column 2: the text is not UTF-8"),
        (b'"\xc0\x80"', "column 2: the text is not UTF-8"),
        (b'"\xed\xa0\x80"', "column 2: the text is not UTF-8"),
        (b'"\xf4\x90\x80\x80"', "column 2: the text is not UTF-8"),
        (b'"\xe2\x82', "column 2: the text is not UTF-8"),
        (b"1e999", "column 1: the number is too large"),
        (b"-", "column 2: a digit is expected"),
        (b"01", "column 2: nothing more is expected"),
        (b"{1: 2}", "column 2: a name in quotes is expected"),
        (b'{"a" 2}', "column 6: a colon is expected"),
        (b'{"a": 2 "b"}', "column 9: a comma or } is expected"),
        (b"[" * 200, "column 130: arrays and objects are nested too deeply"),
    ],
)
def test_what_is_no_json(read_json: Any, document: bytes, message: str) -> None:
    assert read_json(document) == f"error: line 1, {message}"


@pytest.mark.parametrize("length", [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 100_003])
def test_sha256(programs: Programs, length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    assert call(programs.probe, "sha256", data=data).stdout.decode() == hashlib.sha256(data).hexdigest()
