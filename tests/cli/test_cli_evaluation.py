"""`stvsr evaluate` of several bundles, chains and clips in one call."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support import toy_windows
from tests.support.commands import Run, assert_one_clear_error, run_inside
from tests.support.media import make_video, pan
from tests.support.toy import write_toy


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return run_inside(monkeypatch, capsys)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    frames = pan(12, (48, 64))
    return [make_video(folder / "a.mp4", frames[:5]), make_video(folder / "b.mp4", frames[::2][:5])]


@pytest.fixture(scope="module")
def blurred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("bundles") / "blurred", name="blurred", blur_px=1)


@pytest.fixture(scope="module")
def spatial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle that enlarges x2 and adds no frames."""
    window = toy_windows.WINDOWS["replicate 3"]
    return toy_windows.write_toy(tmp_path_factory.mktemp("bundles") / "spatial", window) / "graphs"


def test_all_bundles_are_judged_on_all_clips(
    inside: Run, toy: Path, blurred: Path, spatial: Path, clips: list[Path], tmp_path: Path
) -> None:
    chain = f"{toy}+{spatial}"
    saved, page = tmp_path / "scores.json", tmp_path / "page.html"
    command = ("evaluate", toy, blurred, chain, *clips, "-s", "2", "-t", "2", "--device", "cpu")
    done = inside(*command, "-o", saved, "--page", page)
    assert done.returncode == 0, done.stderr
    answer = json.loads(saved.read_text())
    names = ["toy", "blurred", "toy+graphs"]
    assert [one["bundle"] for one in answer["evaluations"]] == names
    for name, model, one in zip(names, (toy, blurred, chain), answer["evaluations"], strict=True):
        assert list(one["clips"]) == ["a", "b"]
        assert (one["device"], one["backend"], one["precision"]) == ("cpu", "ort", "fp32")
        if name == "blurred":
            alone = json.loads(inside("evaluate", model, *clips, *command[-6:], "--json").stdout)
            assert alone == one, "together as apart"
    exported = inside("export", "fourier-s", "--untrained", "--scores", saved, "-o", tmp_path / "exported")
    assert_one_clear_error(exported, "several bundles", "alone")
    first, second, _ = answer["evaluations"]
    over = answer["differences"]
    assert (over["from"], list(over["of"])) == ("toy", names[1:])
    gains = [
        second["clips"][clip]["at"]["stvsr"]["psnr_y_db"] - first["clips"][clip]["at"]["stvsr"]["psnr_y_db"]
        for clip in "ab"
    ]
    found = over["of"]["blurred"]["at"]
    assert found["psnr_y_db"]["mean"] == pytest.approx(sum(gains) / 2, abs=1e-4)
    assert found["psnr_y_db"]["mean"] < -0.1, "a blur costs"
    low, high = found["psnr_y_db"]["interval_95"]
    assert (high - low) / 2 == pytest.approx(12.7062 * abs(gains[0] - gains[1]) / 2, abs=1e-3)
    for word in (
        "toy+graphs",
        "mean",
        "over toy",
        "bicubic+repeat",
        "between input times",
        "±",
        "x2 in space, x2 in time",
    ):
        assert word in done.stdout, word
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if line.startswith(" "))
    text = page.read_text()
    assert text.count("<svg class=") == 2
    assert f"{first['mean']['at']['stvsr']['psnr_y_db']:.2f} ±" in text
    assert not re.search(r"https?://|<script|\b(?:src|href)=", text)


def test_factors_are_those_that_all_bundles_have(inside: Run, toy: Path, spatial: Path, clips: list[Path]) -> None:
    done = inside("evaluate", toy, spatial, clips[0], "--json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    protocols = [one["protocol"] for one in answer["evaluations"]]
    assert protocols == [{"scale": 2, "factor": 1, "exposure": False, "crf": None}] * 2
    assert answer["differences"]["of"]["graphs"]["at"]["psnr_y_db"]["interval_95"] is None, "of one clip"
    assert [one["preset"] for one in answer["evaluations"]] == ["fast"] * 2
    shown = inside("evaluate", toy, spatial, clips[0], "--device", "cpu", "--preset", "balanced").stdout
    assert "x2 in space, x1 in time; preset balanced" in shown
    assert not any(word in shown for word in ("between", "±", "95 %"))


def test_what_cannot_be_judged_together_is_refused(
    inside: Run, toy: Path, spatial: Path, clips: list[Path], tmp_path: Path
) -> None:
    doubled = toy_windows.write_toy(tmp_path / "toy", toy_windows.WINDOWS["doubled 2+1"]) / "graphs"
    (clip, _) = clips
    for arguments, words in (
        ([toy, spatial, clip, "-s", "3"], ["cannot be judged together", "x2"]),
        ([toy, doubled, clip], ["means over time", "apart"]),
        ([toy, toy, clip], ["named twice"]),
        ([toy, spatial], ["no clip to judge by"]),
        ([toy, "fourier-x", clip], ["no bundle and no clip 'fourier-x'"]),
        ([clip, toy], ["There is no bundle", clip.name]),
    ):
        assert_one_clear_error(inside("evaluate", *arguments), *words)


def test_a_bundle_that_fails_leaves_the_others(
    inside: Run, toy: Path, blurred: Path, clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stvsr.engine.contract.errors import BackendError
    from stvsr.engine.pipeline import chain

    opened = chain.Chain.__init__

    def fail(self: chain.Chain, passes: Any, *arguments: Any, **options: Any) -> None:
        if passes[0].bundle.manifest.name == "blurred":
            raise BackendError("It does not run here.")
        opened(self, passes, *arguments, **options)

    monkeypatch.setattr(chain.Chain, "__init__", fail)
    saved = tmp_path / "scores.json"
    done = inside("evaluate", toy, blurred, clips[0], "-s", "2", "-o", saved)
    assert done.returncode == 1
    assert "blurred: It does not run here." in done.stderr
    answer = json.loads(saved.read_text())
    assert [one["bundle"] for one in answer["evaluations"]] == ["toy"]
    assert answer["errors"] == {"blurred": "It does not run here."}
    assert_one_clear_error(inside("evaluate", blurred, clips[0], "-s", "2"), "It does not run here.")


@pytest.mark.parametrize(("option", "name"), [("-o", "scores.json"), ("--page", "page.html")])
def test_existing_outputs_stay_unless_they_may_be_replaced(
    inside: Run, toy: Path, clips: list[Path], option: str, name: str, tmp_path: Path
) -> None:
    existing = tmp_path / name
    existing.write_text("other work")
    command = ("evaluate", toy, clips[0], "-s", "2", option, existing)
    assert_one_clear_error(inside(*command), f"{name} exists already", "--overwrite")
    assert existing.read_text() == "other work"
    done = inside(*command, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert existing.read_text() != "other work"
