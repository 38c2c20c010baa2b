"""The page in a real browser, opened as a file: what is seen, by mouse and by keyboard."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from stvsr.engine.compare.page import ComparisonPage, Side

from tests.support.browser import CHROMIUM, Browser, browsing
from tests.support.comparison import pictures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
COUNT, RATE, SIZE = 30, 25, (90, 160)


def level(frame: int) -> int:
    """Return the gray level of a frame of the first video; the second one has the rest to 255."""
    return 20 + 6 * frame


def gray(value: int) -> np.ndarray:
    return np.full((*SIZE, 3), value, np.uint8)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a page of two gray videos, and a truth whose rows have levels of their own."""
    rows = np.repeat(np.linspace(0, 255, SIZE[0]).astype(np.uint8)[:, None, None], SIZE[1], 1).repeat(3, 2)
    path = tmp_path_factory.mktemp("page") / "a page & more.html"
    made = ComparisonPage([Side("before"), Side("after"), Side("rows")], Fraction(RATE), COUNT, "Test")
    for frame in range(COUNT):
        made.add(Fraction(frame, RATE), [gray(level(frame)), gray(255 - level(frame)), rows])
    made.write(path)
    return path


@pytest.fixture
def browser(page: Path, tmp_path: Path) -> Iterator[Browser]:
    with browsing(tmp_path) as opened:
        opened.open(page.as_uri())
        opened.wait("videos.every((video) => video.readyState >= 2 && !video.seeking)")
        yield opened
        assert [line for line in opened.console if "willReadFrequently" not in line] == []  # the test reads


def seen(browser: Browser, across: float, down: float = 0.25) -> int:
    """Return the gray level at a point of the stage, by shares of its sides."""
    left, top, width, height = browser.box("#stage")
    shot = browser.screenshot()
    y, x = int(top + down * height), int(left + across * width)
    return int(shot[y - 2 : y + 3, x - 2 : x + 3].mean())


def near(value: int, tolerance: int = 3) -> object:
    return pytest.approx(value, abs=tolerance)


def is_still(browser: Browser) -> None:
    browser.wait("videos.every((video) => !video.seeking)")
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_the_border_moves_by_mouse_and_by_keyboard(browser: Browser) -> None:
    assert (seen(browser, 0.25), seen(browser, 0.75)) == (near(level(0)), near(255 - level(0)))
    left, top, width, height = browser.box("#stage")
    browser.drag((left + width / 2, top + height / 2), (left + width * 0.9, top + height / 2))
    assert (seen(browser, 0.75), seen(browser, 0.95)) == (near(level(0)), near(255 - level(0)))
    browser.run("$('stage').focus()")
    for _ in range(35):
        browser.press("ArrowLeft", 37)
    assert browser.run("Math.round(view.border)") == 20
    assert (seen(browser, 0.1), seen(browser, 0.3)) == (near(level(0)), near(255 - level(0)))
    browser.run("$('right').value = 2; $('right').onchange()")
    assert seen(browser, 0.75, 0.9) == near(230, 6)


def test_every_frame_is_found(browser: Browser) -> None:
    browser.run("document.activeElement.blur()")
    for frame in range(1, 6):
        browser.press(".", 190, ".")
        is_still(browser)
        assert (seen(browser, 0.25), seen(browser, 0.75)) == (near(level(frame), 2), near(255 - level(frame), 2))
    browser.press(",", 188, ",")
    browser.run("$('frame').focus()")
    browser.press("ArrowRight", 39)
    browser.press("ArrowRight", 39)
    assert browser.run("view.frame") == 6
    assert browser.run("$('time').value") == "7 / 30, 0.240 s"
    left, top, width, height = (float(value) for value in browser.box(".chart"))
    browser.run(f"window.scrollTo(0, {top} - 100)")
    left, top, width, height = (float(value) for value in browser.box(".chart"))
    x = left + width * (52 + (632 - 52) * 20 / (COUNT - 1)) / 640
    browser.drag((x, top + height / 2), (x, top + height / 2))
    assert browser.run("view.frame") == 20
    assert browser.run("Number(document.querySelector('.now').getAttribute('x1'))") == pytest.approx(452, abs=1)
    browser.run("window.scrollTo(0, 0)")
    is_still(browser)
    assert seen(browser, 0.25) == near(level(20), 2)


def test_the_videos_play_in_step(browser: Browser) -> None:
    browser.run("document.activeElement.blur()")
    browser.press(" ", 32, " ")
    browser.wait("view.frame > 3")
    drifts = "Math.max(...videos.map((video) => Math.abs(video.currentTime - videos[0].currentTime)))"
    worst = browser.run(
        f"new Promise((done) => {{ let worst = 0; const look = () => {{ worst = Math.max(worst, {drifts});"
        " if (performance.now() > end) done(worst); else setTimeout(look, 20); };"
        " const end = performance.now() + 2500; look(); })"
    )
    assert worst < 0.5, "a new beginning takes a moment"
    assert browser.run("view.playing"), "it plays again after the end, which comes after 1.2 s"
    browser.run("$('play').click()")
    is_still(browser)
    assert browser.run(drifts) == 0
    frame = browser.run("view.frame")
    assert (seen(browser, 0.25), seen(browser, 0.75)) == (near(level(frame), 2), near(255 - level(frame), 2))


def test_differences_are_shown(browser: Browser) -> None:
    browser.run("document.querySelector('input[value=difference]').click()")
    browser.run("$('gain').value = 1; $('gain').onchange()")
    assert seen(browser, 0.5) == near(255 - 2 * level(0), 4)
    browser.run("seek(17)")
    is_still(browser)
    least = abs(255 - 2 * level(17))
    assert seen(browser, 0.5) == near(least, 4)
    browser.run("$('gain').value = 8; $('gain').onchange()")
    assert seen(browser, 0.5) == near(8 * least, 24)
    browser.run("$('left').value = 1; $('left').onchange()")
    assert seen(browser, 0.5) == 0, "of a video and itself"


def test_pictures_are_zoomed_and_moved(browser: Browser) -> None:
    browser.run("$('left').value = 2; $('left').onchange(); moveBorder(100)")
    assert seen(browser, 0.5, 0.05) < 25
    browser.run("$('stage').focus()")
    for _ in range(3):
        browser.press("+", 187, "+")
    assert browser.run("$('zoom').value") == "3.38×"
    middle = seen(browser, 0.5, 0.5)
    assert middle == near(127, 8)
    for _ in range(40):
        browser.press("ArrowDown", 40)
    assert seen(browser, 0.5, 0.97) > 245, "the last rows are at the bottom, and nothing is beyond"
    left, top, width, height = browser.box("#stage")
    x, y = left + width / 2, top + height / 2
    browser.drag((x, y - 100), (x, y + 100))
    assert seen(browser, 0.5, 0.97) < 240
    browser.press("0", 48, "0")
    assert browser.run("[view.zoom, view.x, view.y]") == [1, 0, 0]


def test_the_profile_follows_its_line(browser: Browser) -> None:
    def shown(number: int) -> int:
        value = browser.run(
            f"(() => {{ const c = profiles[2].canvas; $('line').value = {number}; takeLine();"
            " return c.getContext('2d').getImageData(c.width / 2, 3, 1, 1).data[0]; })()"
        )
        return int(value)

    browser.wait("profiles.every(({ sheet }) => sheet.complete)")
    rows = browser.run("data.lines")
    for number in (0, len(rows) // 2, len(rows) - 1):
        assert shown(number) == near(round(255 * rows[number] / (SIZE[0] - 1)), 5)
        assert browser.run("$('row').value") == f"row {rows[number]} of {SIZE[0]}"
    levels = browser.run(
        "(() => { const c = profiles[0].canvas, g = c.getContext('2d');"
        " return [0, 10, 20].map((y) => g.getImageData(c.width / 2, y, 1, 1).data[0]); })()"
    )
    assert levels == [near(level(frame), 5) for frame in (0, 10, 20)]


def test_everything_is_reached_by_the_keyboard(browser: Browser) -> None:
    browser.run("document.activeElement.blur()")
    reached = []
    for _ in range(20):
        browser.press("Tab", 9)
        reached.append(browser.run("document.activeElement.id || document.activeElement.name"))
    for name in ("left", "right", "view", "out", "in", "fit", "stage", "border", "play", "frame", "speed", "line"):
        assert name in reached, name


def test_pictures_have_a_page_too(tmp_path: Path) -> None:
    first, second = pictures(2, (60, 80))
    made = ComparisonPage([Side("a"), Side("b")], Fraction(25), 1, "Pictures")
    made.add(Fraction(0), [first, second])
    made.write(tmp_path / "page.html")
    with browsing(tmp_path, dark=True) as browser:
        browser.open((tmp_path / "page.html").as_uri())
        browser.wait("layers.every(({ media }) => media.complete && media.naturalWidth === 80)")
        left, top, width, height = map(int, browser.box("#stage"))
        assert browser.run("[$('player').hidden, $('profile').hidden]") == [True, True]
        browser.run("moveBorder(100)")
        shot = browser.screenshot()[top : top + height, left : left + width]
        expected = first[np.arange(height) * 60 // height][:, np.arange(width) * 80 // width]
        assert np.median(np.abs(shot.astype(int) - expected[: len(shot)])) <= 2
        assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(18, 19, 20)"
        assert browser.console == []
