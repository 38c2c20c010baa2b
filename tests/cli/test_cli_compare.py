"""`stvsr compare`, `evaluate --page` and `upscale --preview`: pages as people ask for them."""

import base64
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from stvsr.engine.contract.metrics import luma, psnr
from stvsr.engine.contract.resize import resized
from stvsr.engine.media.reader import open_reader

from tests.support.commands import Run, assert_one_clear_error, run_inside
from tests.support.comparison import data_of, decoded, pictures, write_picture
from tests.support.media import make_clip, make_video, pan


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return run_inside(monkeypatch, capsys)


def test_pictures_are_kept_without_loss(inside: Run, tmp_path: Path) -> None:
    first, second = pictures(2, (33, 47))
    paths = [write_picture(tmp_path / f"{name}.png", picture) for name, picture in (("a", first), ("b", second))]
    done = inside("compare", *paths, "-o", tmp_path / "page.html", "--json")
    assert done.returncode == 0, done.stderr
    data = data_of(tmp_path / "page.html")
    assert (data["kind"], data["size"]) == ("picture", [47, 33])
    for layer, picture in zip(data["layers"], (first, second), strict=True):
        assert layer["type"] == "image/png"
        assert np.array_equal(decoded(base64.b64decode(layer["data"]))[0], picture)
    answer = json.loads(done.stdout)
    assert answer["bytes"] == (tmp_path / "page.html").stat().st_size
    assert answer["scores"][0]["psnr_y_db"] == pytest.approx(psnr(luma(first), luma(second)), abs=1e-4)


@pytest.mark.parametrize(("names", "words"), [("ssim,vmaf", "Unknown metric 'ssim'"), ("vmaf", "not on the PATH")])
def test_a_metric_that_is_missing_here_is_refused_before_the_work(
    inside: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str, words: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = inside("compare", "a.png", "b.png", "-o", tmp_path / "page.html", "--metrics", names)
    assert_one_clear_error(done, words)


def test_a_part_of_videos_is_compared(inside: Run, tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", pan(12))
    command = ("compare", clip, clip, clip, "-o", tmp_path / "page.html", "--start", "0.125", "--frames", "5")
    done = inside(*command)
    assert done.returncode == 0, done.stderr
    assert "equal" in done.stdout
    data = data_of(tmp_path / "page.html")
    assert data["times"] == [n / 24 for n in range(5)]
    assert len({layer["name"] for layer in data["layers"]}) == 1
    shown = decoded(base64.b64decode(data["layers"][0]["data"]))[0]
    with open_reader(clip) as reader:
        frames = [np.abs(shown - 255 * frame.rgb.transpose(1, 2, 0)).mean() for frame in reader]
    assert int(np.argmin(frames)) == 3
    assert_one_clear_error(inside(*command), "page.html exists already", "--overwrite")


def test_what_cannot_be_compared_is_refused(inside: Run, tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", pan(2))
    for arguments, words in (
        ((clip, "-o", "page.html"), ["Name two videos"]),
        ((clip, clip, clip, clip, "-o", "page.html"), ["Name two videos"]),
        ((clip, tmp_path / "none.mp4", "-o", tmp_path / "page.html"), ["none.mp4"]),
        ((clip, clip, "-o", tmp_path / "page.mp4"), ["page.mp4", ".html"]),
        ((clip, clip, "-o", tmp_path / "none" / "page.html"), ["none", "create it first"]),
    ):
        assert_one_clear_error(inside("compare", *arguments), *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4"]


def test_evaluate_writes_a_page_of_its_frames(inside: Run, toy: Path, tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", pan(7))
    page = tmp_path / "page.html"
    done = inside("evaluate", toy, clip, "-s", "2", "-t", "2", "--page", page, "--json")
    assert done.returncode == 0, done.stderr
    data, scores = data_of(page), json.loads(done.stdout)["clips"]["clip"]
    assert [layer["name"] for layer in data["layers"]] == ["bicubic", str(toy), "clip.mp4"]
    assert data["times"] == [n / 24 for n in range(7)]
    mean = sum(scores[when]["stvsr"]["psnr_y_db"] * scores[when]["stvsr"]["frames"] for when in ("at", "between")) / 7
    assert f"<td>{mean:.2f} dB</td>" in page.read_text()


def test_a_preview_is_of_the_part_that_moves(inside: Run, toy: Path, tmp_path: Path) -> None:
    still = pan(1) * 12
    clip = make_video(tmp_path / "clip.mp4", [*still, *pan(24), *still])
    page = tmp_path / "page.html"
    options = ("-m", toy, "-s", "2", "--device", "cpu", "--preview", page)
    done = inside("upscale", clip, *options, "-t", "13", "--json")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "page.html"]
    data = data_of(page)
    assert data["size"] == [128, 96]
    assert 250 < len(data["times"]) <= 300, "13 times 24 frames a second are too many for a second"
    assert [layer["name"] for layer in data["layers"]] == ["clip.mp4", "toy"]
    first = decoded(base64.b64decode(data["layers"][0]["data"]))
    changes = [np.abs(a.astype(int) - b).mean() for a, b in zip(first, first[13:], strict=False)]
    assert np.median(changes) > 1, "it moves"
    assert_one_clear_error(inside("upscale", clip, *options), "page.html exists already")
    slow = inside(
        "upscale",
        clip,
        *options,
        "--overwrite",
        "--slowmo",
        "2",
        "--start",
        "0.5",
        "--frames",
        "6",
        "--progress",
        "json",
    )
    assert slow.returncode == 0, slow.stderr
    events = [json.loads(line) for line in slow.stderr.splitlines()]
    assert [(event["event"], event["output"]) for event in (events[0], events[-1])] == [
        ("started", str(page)),
        ("finished", str(page)),
    ]
    assert len(data_of(page)["times"]) == 12


def test_a_preview_of_a_picture_is_one_picture(inside: Run, toy: Path, tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "picture.png", pictures(1, (24, 32))[0])
    done = inside("upscale", picture, "-m", toy, "-s", "2", "--device", "cpu", "--preview", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    data = data_of(tmp_path / "page.html")
    assert (data["kind"], data["size"]) == ("picture", [64, 48])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["-o", "out.mp4"], "leave out -o"),
        (["--resume"], "leave out --resume"),
        (["--adapt"], "leave out --adapt"),
        (["other.mp4"], "one input"),
    ],
)
def test_a_preview_refuses_what_it_has_no_use_for(
    inside: Run, short: Path, tmp_path: Path, arguments: list[str], word: str
) -> None:
    assert_one_clear_error(inside("upscale", short, *arguments, "--preview", tmp_path / "page.html"), word)
    assert_one_clear_error(inside("upscale", "-", "--preview", tmp_path / "page.html"), "pipe")
    assert list(tmp_path.iterdir()) == []


def test_frames_are_shown_upright_and_in_their_proportions(inside: Run, tmp_path: Path) -> None:
    turned = make_clip(tmp_path / "turned.mp4", count=3, size=(64, 48), rotation=(90, False))
    wide = make_clip(tmp_path / "wide.mp4", count=3, size=(64, 96), aspect=Fraction(3, 2))
    done = inside("compare", turned, wide, "-o", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    data = data_of(tmp_path / "page.html")
    assert (data["size"], data["aspect"]) == ([64, 96], 1.0)
    with open_reader(turned) as reader:
        first = next(iter(reader)).rgb
    shown = decoded(base64.b64decode(data["layers"][0]["data"]))[0]
    upright = [255 * resized(np.rot90(first, turns, (1, 2)), (96, 64)).transpose(1, 2, 0) for turns in (1, 3)]
    errors = [np.abs(shown - frame).mean() for frame in upright]
    assert errors[0] < errors[1] / 4
