"""Changed manifests are accepted or refused by both parsers alike, and never break the C++ one, which has sanitizers.

STVSR_FUZZ is the number of manifests of each kind of window.
"""

import copy
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stvsr.engine.contract.bundle import parse_manifest
from stvsr.engine.contract.errors import BundleError

from tests.support.cpp_host import Programs
from tests.support.mutations import mutations_of

COUNT = int(os.environ.get("STVSR_FUZZ", "150"))
SEED = int(os.environ.get("STVSR_TORTURE_SEED", "1"))


def python_accepts(text: bytes) -> bool:
    try:
        parse_manifest(text, Path("manifest.json"))
    except BundleError:
        return False
    return True


def cpp_answers(programs: Programs, texts: list[bytes]) -> list[str]:
    """Return the answer of the C++ parser to each manifest; it may write nothing on stderr."""
    done = subprocess.run([programs.probe, "manifest"], input=b"\n".join(texts) + b"\n", capture_output=True)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode(errors="replace")[-3000:]
    answers = done.stdout.decode(errors="replace").split("\n")
    assert len(answers) == len(texts) + 1
    return answers[:-1]


def test_both_parsers_agree_on_changed_manifests(programs: Programs, toys: dict[str, Path]) -> None:
    accepted = 0
    for number, folder in enumerate(toys.values()):
        document = json.loads((folder / "engines/manifest.json").read_text())
        texts = [json.dumps(document).encode(), *mutations_of(document, SEED + 1000 * number, COUNT)]
        for text, answer in zip(texts, cpp_answers(programs, texts), strict=True):
            assert answer == "accepted" or answer.startswith("error: manifest.json")
            if python_accepts(text) != (answer == "accepted"):
                assert _may_differ(text, answer), (text.decode(errors="replace"), answer)
            accepted += answer == "accepted"
    assert accepted >= len(toys)  # the unchanged ones, and some others


def test_both_parsers_agree_on_every_missing_field(programs: Programs, toys: dict[str, Path]) -> None:
    documents = [json.loads((folder / "engines/manifest.json").read_text()) for folder in toys.values()]
    with_flow = copy.deepcopy(next(document for document in documents if document["window"]["kind"] == "run"))
    with_flow["flows"] = [
        {"name": "flow", "pairs": [[0, 1]], "method": "dis", "unit": "input pixels", "components": "dx, dy"}
    ]
    axes = ["batch", 1, 2, "height", "width"]
    with_flow["graphs"][0]["inputs"].append({"name": "flow", "dtype": "float32", "axes": axes})
    for document in [*documents, with_flow]:
        texts = [json.dumps(value).encode() for value in (document, *without_each_field(document))]
        answers = cpp_answers(programs, texts)
        assert answers[0] == "accepted"
        for text, answer in zip(texts, answers, strict=True):
            assert python_accepts(text) == (answer == "accepted") or _may_differ(text, answer), (text, answer)


def without_each_field(value: Any) -> Iterator[Any]:
    """Yield copies of a JSON value, each without one field of one of its objects."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if isinstance(value, dict):
            yield {name: other for name, other in value.items() if name != key}
        for changed in without_each_field(part):
            copied = copy.copy(value)
            copied[key] = changed
            yield copied


def _may_differ(text: bytes, answer: str) -> bool:
    """Return whether the parsers may disagree: the C++ one skips what it does not use, and its JSON is stricter."""
    if answer == "accepted":
        return b'"precisions"' in text
    return "duplicate name" in answer or "too deeply" in answer or "too large" in answer
