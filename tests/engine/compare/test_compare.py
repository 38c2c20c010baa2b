"""The page of a comparison: frames in step, scores, and a file that needs nothing else."""

import base64
import hashlib
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from stvsr import RequestError
from stvsr.engine.compare import motion
from stvsr.engine.compare import page as page_module
from stvsr.engine.compare.in_step import frames_in_step
from stvsr.engine.compare.motion import liveliest
from stvsr.engine.compare.page import ComparisonPage, Side
from stvsr.engine.compare.scores import chart
from stvsr.engine.contract.further_metrics import FurtherMetric
from stvsr.engine.contract.metrics import luma, psnr, ssim
from stvsr.engine.media.reader import open_reader

from tests.support.comparison import data_of, decoded, pictures, write_picture
from tests.support.media import make_video, pan

NAMES = ('a <b> & "c".mp4', "</script>.mp4", "truth.mp4")


def noisy(frames: list[np.ndarray], seed: int, strength: int = 20) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [
        np.clip(f.astype(int) + random.integers(-strength, strength + 1, f.shape), 0, 255).astype(np.uint8)
        for f in frames
    ]


def write_page(path: Path, videos: list[list[np.ndarray]]) -> ComparisonPage:
    page = ComparisonPage([Side(name) for name in NAMES[: len(videos)]], Fraction(25), len(videos[0]), "A <title>")
    for number, frames in enumerate(zip(*videos, strict=True)):
        page.add(Fraction(number, 25), frames)
    page.write(path)
    return page


def test_frames_of_other_rates_and_sizes_are_in_step(tmp_path: Path) -> None:
    slow = make_video(tmp_path / "slow.mp4", pan(4, (32, 48)), ticks=[0, 2, 4, 6])
    fast = make_video(tmp_path / "fast.mp4", pan(9, (64, 96)))
    picture = write_picture(tmp_path / "picture.png", pictures(1, (32, 48))[0])
    with open_reader(slow) as first, open_reader(fast) as second, open_reader(picture) as third:
        steps = list(frames_in_step([first, second, third]))
        sources = [list(reader) for reader in (first, second)]
    assert [time for time, _ in steps] == [Fraction(n, 24) for n in range(7)], "the last slow frame lasts 1/24 s"
    assert all(frame.shape == (64, 96, 3) and frame.dtype == np.uint8 for _, frames in steps for frame in frames)
    for number, (_, (shown, own, _)) in enumerate(steps):
        assert np.array_equal(own, np.rint(sources[1][number].rgb * 255).transpose(1, 2, 0))
        assert np.array_equal(shown, steps[number // 2 * 2][1][0])
        small = shown[::2, ::2].astype(float)
        errors = [np.abs(small - 255 * frame.rgb.transpose(1, 2, 0)).mean() for frame in sources[0]]
        assert int(np.argmin(errors)) == number // 2
    assert all(np.array_equal(frames[2], steps[0][1][2]) for _, frames in steps)


def test_a_page_holds_all_that_it_shows(tmp_path: Path) -> None:
    truth = pictures(6, (51, 65))
    videos = [noisy(truth, 1), noisy(truth, 2, 5), truth]
    page = write_page(tmp_path / "page.html", videos)
    data, text = data_of(tmp_path / "page.html"), (tmp_path / "page.html").read_text()
    assert (data["kind"], data["size"], data["rate"]) == ("video", [64, 50], 25.0)
    assert data["times"] == [number / 25 for number in range(6)]
    assert [layer["name"] for layer in data["layers"]] == list(NAMES)
    for layer, video, limit in zip(data["layers"], videos, (14, 8, 7), strict=True):  # chroma of noise is lost
        shown = decoded(base64.b64decode(layer["data"]))
        assert [frame.shape for frame in shown] == [(50, 64, 3)] * 6
        assert max(np.abs(a.astype(int) - b[:50, :64]).mean() for a, b in zip(shown, video, strict=True)) < limit
        (sheet,) = decoded(base64.b64decode(layer["profiles"].partition("base64,")[2]))
        assert sheet.shape == (6 * len(data["lines"]), 64, 3)
        line = sheet.reshape(-1, 6, 64, 3)[10].astype(int)
        expected = np.stack([frame[data["lines"][10], :64] for frame in video])
        assert np.abs(line - expected).mean() < 2 * limit
    for score, video in zip(page.scores, videos[:2], strict=True):
        assert score.psnr_db == [psnr(luma(a), luma(b)) for a, b in zip(video, truth, strict=True)]
        assert score.ssim == [ssim(luma(a), luma(b)) for a, b in zip(video, truth, strict=True)]
        assert f"<td>{np.mean(score.psnr_db):.2f} dB</td><td>{np.mean(score.ssim):.4f}</td>" in text
    assert text.count("<svg") == 2
    assert text.count("<polyline") == 4


def test_a_page_loads_nothing_and_runs_only_its_own_script(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", [noisy(pictures(3), 1), pictures(3)])
    text = (tmp_path / "page.html").read_text()
    assert not re.search(r"https?://|<link|<iframe|@import|url\(|\b(?:src|href)=|\bon[a-z]+=\"|\bstyle=", text)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none';")
    for tag in ("script", "style"):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text)
    assert "<title>A &lt;title&gt;</title>" in text
    assert text.count("</script>") == 2, "no name ends the script"
    assert "<b>a &lt;b&gt; &amp; &quot;c&quot;.mp4</b>" in text


def test_every_control_has_a_name_and_every_identifier_exists() -> None:
    folder = Path(page_module.__file__).parent / "page"
    document, script = ((folder / name).read_text() for name in ("compare.html", "compare.js"))
    ids = set(re.findall(r'\bid="([\w-]+)"', document))
    assert set(re.findall(r'\$\("([\w-]+)"\)', script)) <= ids
    assert set(re.findall(r'aria-labelledby="([\w-]+)"', document)) <= ids
    for control in re.finditer(r"<(input|select|button|output)[^>]*>", document):
        before = document[: control.start()]
        in_label = before.rfind("<label") > before.rfind("</label>")
        named = in_label or "aria-label=" in control[0] or control[1] == "button" or 'id="time"' in control[0]
        assert named, f"{control[0]} has no name"


def test_equal_frames_and_small_ones_are_named(tmp_path: Path) -> None:
    frames = pictures(2, (8, 10))
    page = write_page(tmp_path / "page.html", [frames, frames])
    (means,) = page.means()
    assert (means["psnr_y_db"], means["ssim_y"]) == (None, None)
    text = (tmp_path / "page.html").read_text()
    assert "<td>equal frames</td><td>frames too small</td>" in text
    assert "<svg" not in text
    half = chart("PSNR", [0, 1, 2], [("a", [30.0, float("inf"), 31.0])], 1)
    assert half.count("<polyline") == 2, "an infinite value is a gap"
    assert "mean equal frames" in half


def test_a_page_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "_CLIP_BYTES", 200_000)
    monkeypatch.setattr(page_module, "_PROFILE_PX", 100_000)
    monkeypatch.setattr(page_module, "_PROFILE_BYTES", 60_000)
    monkeypatch.setattr(page_module, "_CLIP_SIDE", 160)
    random = np.random.default_rng(0)
    noise = [random.integers(0, 256, (120, 320, 3), np.uint8) for _ in range(40)]
    write_page(tmp_path / "page.html", [noise, noise])
    data = data_of(tmp_path / "page.html")
    assert data["size"] == [160, 60]
    assert sum(len(base64.b64decode(layer["data"])) for layer in data["layers"]) < 1.1 * 200_000
    assert len(data["lines"]) * 40 * 160 <= 100_000
    assert sum(len(layer["profiles"]) for layer in data["layers"]) < 60_000 * 4 / 3 + 100
    monkeypatch.setattr(page_module, "_PICTURE_BYTES", 60_000)
    write_page(tmp_path / "picture.html", [noise[:1], noise[:1]])
    layers = data_of(tmp_path / "picture.html")["layers"]
    assert [layer["type"] for layer in layers] == ["image/webp"] * 2
    assert sum(len(base64.b64decode(layer["data"])) for layer in layers) <= 60_000


def test_a_page_without_frames_is_refused(tmp_path: Path) -> None:
    page = ComparisonPage([Side("a"), Side("b")], Fraction(25), 1, "x")
    with pytest.raises(RequestError, match="no frames"):
        page.write(tmp_path / "page.html")


def test_the_liveliest_part_moves_and_has_no_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    still, other, moving = pan(1), [1 - frame for frame in pan(1)], pan(24)
    cuts = [*still * 6, *other * 6] * 2  # in a second
    clip = make_video(tmp_path / "clip.mp4", [*cuts, *still * 24, *moving, *still * 24])
    with open_reader(clip) as reader:
        assert liveliest(reader, Fraction(9)) == (0, Fraction(96, 24))
        low, high = liveliest(reader, Fraction(1))
        assert (abs(low - 2) <= Fraction(2, 24), high - low) == (True, 1)
        monkeypatch.setattr(motion, "_WHOLE_S", 2)
        low, high = liveliest(reader, Fraction(1))  # of some moments
        assert (abs(low - 2) <= Fraction(12, 24), high - low) == (True, 1)


def test_further_metrics_are_columns_and_charts(tmp_path: Path) -> None:
    class Brightness:
        def __init__(self) -> None:
            self.values: list[float] = []

        def add(self, actual: np.ndarray, expected: np.ndarray) -> None:
            self.values.append(float(actual.mean()))

        def finish(self) -> list[float]:
            return self.values

    frames = pictures(3, (32, 48))
    page = ComparisonPage(
        [Side("a"), Side("b"), Side("c")], Fraction(25), 3, "", metrics=[FurtherMetric("vmaf", Brightness)]
    )
    for number, frame in enumerate(frames):
        page.add(Fraction(number, 25), [frame, frame // 2, frame])
    page.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    first, second = (float(np.mean([(frame // half).mean() for frame in frames])) for half in (1, 2))
    assert [one["vmaf"] for one in page.means()] == pytest.approx([first, second], abs=1e-4)
    assert '<th scope="col">SSIM</th><th scope="col">VMAF</th>' in text
    assert f"<td>{second:.2f}</td>" in text
    assert "<figcaption>VMAF" in text
