"""Changed manifests are accepted or refused by both parsers alike, and never break the C++ one, which has sanitizers.

STVSR_FUZZ is the number of manifests of each kind of window.
"""

import json
import os
import subprocess
from pathlib import Path

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


def _may_differ(text: bytes, answer: str) -> bool:
    """Return whether the parsers may disagree: the C++ one skips what it does not use, and its JSON is stricter."""
    if answer == "accepted":
        return b'"precisions"' in text
    return "duplicate name" in answer or "too deeply" in answer or "too large" in answer
