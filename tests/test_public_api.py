"""The public names of `stvsr`: complete, lazy, and light to import."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import stvsr
from stvsr import Backend, BackendError, RequestError, Upscaler, one_scene

from tests.support.toy import write_toy

ROOT = Path(stvsr.__file__).parent
CPU = Backend(device="cpu")
HEAVY = ("numpy", "pydantic", "av", "onnxruntime", "torch", "cupy", "typer", "rich")


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_every_public_name_exists() -> None:
    for name in stvsr.__all__:
        assert getattr(stvsr, name) is not None
    assert set(stvsr.__all__) <= set(dir(stvsr))
    for name in ("upscale", "UpscaleRequest", "Upscaler", "Bundle", "Backend", "one_scene", "StvsrError"):
        assert name in stvsr.__all__


def test_every_error_is_public() -> None:
    tree = ast.parse((ROOT / "engine/contract/errors.py").read_text())
    assert {node.name for node in tree.body if isinstance(node, ast.ClassDef)} <= set(stvsr.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nowhere'"):
        stvsr.nowhere  # noqa: B018  # the attribute access is the test


def test_vapoursynth_is_not_needed_until_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vapoursynth", None)
    with pytest.raises(BackendError, match=r'pip install "stvsr\[vapoursynth\]", with Python 3.12'):
        stvsr.vapoursynth.upscale(None)


def test_importing_the_package_imports_only_the_standard_library() -> None:
    code = f"import sys, stvsr; print([name for name in {HEAVY} if name in sys.modules])"
    assert run_python(code) == "[]\n"


def test_a_star_import_brings_every_public_name() -> None:
    assert run_python("from stvsr import *; print(Upscaler.__name__, one_scene.__name__)") == "Upscaler one_scene\n"


def test_returned_frames_can_be_upscaled_again(tmp_path: Path) -> None:
    """Frames leave as uint16 and may come back: they are converted, not taken for floats."""
    frames = np.random.default_rng(0).random((2, 3, 24, 32), dtype=np.float32)
    with Upscaler(write_toy(tmp_path / "toy"), CPU) as upscaler:
        once = list(upscaler.frames(one_scene(frames), (24, 32)))
        assert once[0].dtype == np.uint16
        again = list(upscaler.frames(one_scene(once), (24, 32)))
        between = list(upscaler.between(once[0], once[1], [0.5], (24, 32)))
    assert np.abs(again[0].astype(int) - once[0]).max() <= 1
    assert np.abs(between[0] - (once[0] / 2 + once[1] / 2)).max() <= 1


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.full((3, 8, 8), 255.0, np.float32), "values from 255 to 255: scale floats to .0, 1."),
        (np.full((3, 8, 8), np.nan, np.float32), "values from nan to nan"),
        (np.full((3, 8, 8), 7, np.int64), "values of int64"),
        (np.zeros((8, 8, 3), np.float32), "shape .3, height, width."),
    ],
)
def test_frames_of_another_type_or_range_are_refused(tmp_path: Path, frame: np.ndarray, message: str) -> None:
    with Upscaler(write_toy(tmp_path / "toy"), CPU) as upscaler:
        with pytest.raises(RequestError, match=message):
            next(upscaler.frames(one_scene([frame]), (8, 8)))
        with pytest.raises(RequestError, match=message):
            next(upscaler.between(frame, frame, [0.5], (8, 8)))
