"""The page: what it is made of, and how it works in a real browser."""

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr.engine.serving.page_routes import page_routes

from tests.support.browser import CHROMIUM, Browser, browsing
from tests.support.media import make_clip
from tests.support.serving import TUS, listening, serving, wait_for

PAGE = Path(page_routes.__code__.co_filename).parent / "page"
pytestmark = [pytest.mark.usefixtures("models"), pytest.mark.long]
TOKEN = "a-token-of-some-length"
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def test_the_page_is_served_without_a_token(tmp_path: Path) -> None:
    with serving(tmp_path, workers=0, host="0.0.0.0", token=TOKEN) as client:
        for address, name, kind in (
            ("/", "index.html", "text/html"),
            ("/app.js", "app.js", "javascript"),
            ("/style.css", "style.css", "text/css"),
            ("/palette.css", "../../palette.css", "text/css"),
        ):
            found = client.get(address)
            assert (found.status_code, found.content) == (200, (PAGE / name).read_bytes())
            assert kind in found.headers["content-type"]
            policy = found.headers["content-security-policy"]
            assert policy.startswith("default-src 'self';")
            assert "unsafe" not in policy
            assert "script-src" not in policy
            assert found.headers["x-content-type-options"] == "nosniff"
        for address in ("/index.html", "/page/app.js", "/..%2fserver.py", "/%2e%2e/server.py"):
            assert client.get(address).status_code == 404
        assert "/" not in client.get("/v1/openapi.json").json()["paths"]


def test_the_page_keeps_its_own_policy() -> None:
    document, script, style = ((PAGE / name).read_text() for name in ("index.html", "app.js", "style.css"))
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon[a-z]+=|https?://(?!www\.w3\.org/)", document)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|https?://", script)
    assert not re.search(r"@import|url\(", style)
    ids = set(re.findall(r'\bid="([\w-]+)"', document))
    assert set(re.findall(r'\$\("([\w-]+)"\)', script)) <= ids
    assert set(re.findall(r'\bfor="([\w-]+)"', document)) <= ids
    for control in re.findall(r"<(?:input|select|button|progress)[^>]*>", document):
        named = "aria-label=" in control or 'type="submit"' in control or control.startswith(("<button", "<select"))
        assert named or re.search(r'id="(file|token)"', control), f"{control} has no name"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Write a clip whose name is no good path."""
    path = tmp_path / "a clip <b>of bees & more.mp4"
    return make_clip(path, count=240, size=(320, 180), options={"crf": "30"})


def start(browser: Browser, client: Any) -> None:
    browser.open(str(client.base_url))
    browser.wait("models.length")


def take_toy(browser: Browser, scale: str = "2") -> None:
    browser.run("$('model').value = 'toy'; takeModel()")
    browser.run(f"document.querySelector('input[name=scale][value=\"{scale}\"]').click()")


def drop(browser: Browser, path: Path) -> None:
    left, top, width, height = browser.box("#drop")
    browser.drop(path, int(left + width / 2), int(top + height / 2))


def edge(browser: Browser) -> int:
    """Return the column of the window at which the border between the two videos is seen."""
    left, top, width, height = map(int, browser.box("#compare"))
    inside = browser.screenshot()[top + 60 : top + height // 2 - 40, left : left + width].astype(
        int
    )  # above its handle
    whitest = inside.min(axis=(0, 2))  # only the border is white all along
    assert whitest.max() > 240, "no border is seen"
    return left + int(np.flatnonzero(whitest > 240).mean())


def share_inverted(browser: Browser) -> float:
    """Return the share of the width, from the right, that the second video has, whose colors the test inverts."""
    browser.run("before.pause(); after.pause(); after.style.filter = ''")
    left, top, width, height = map(int, browser.box("#compare"))
    pictures = []
    for filter in ("", "invert(1)"):
        browser.run(f"after.style.filter = '{filter}'")
        pictures.append(browser.screenshot()[top : top + height, left : left + width].astype(int))
    browser.run("after.style.filter = ''")
    changed = np.abs(pictures[0] - pictures[1]).max(axis=(0, 2)) > 40
    assert np.all(np.diff(changed.astype(int)) >= 0), "the second video is at the right of the border"
    return float(changed.mean())


@needs_chromium
@pytest.mark.slow
def test_a_video_is_dropped_upscaled_compared_and_downloaded(tmp_path: Path, clip: Path) -> None:
    with listening(tmp_path) as client, browsing(tmp_path) as browser:
        browser.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "downloads"))
        start(browser, client)
        drop(browser, clip)
        browser.wait("view.playable")
        assert browser.run("$('chosen').textContent").startswith("a clip <b>of bees & more.mp4, ")
        take_toy(browser)
        assert browser.run("$('outcome').textContent") == "320 × 180 becomes 640 × 360, with 2 times the frames"
        assert browser.run("document.querySelector('input[name=scale][value=\"8\"]').disabled") is False
        browser.run("$('options').requestSubmit()")

        browser.wait("!$('after-layer').hidden")
        assert browser.run("view.shown") == "preview", "the preview is there before the result"
        assert browser.run("[after.videoWidth, after.videoHeight]") == [640, 360]
        assert 0 < browser.run("$('progress').value") < 1
        browser.run("$('play').click()")
        browser.wait("!$('download').hidden", 300)
        assert browser.run("$('state').textContent") == "Done"
        assert browser.run("$('numbers').textContent") == "480 frames of 640 × 360"
        browser.wait("view.shown === 'result' && after.readyState >= 2 && !after.seeking && !before.seeking")
        browser.run("before.pause(); after.pause()")
        browser.run("$('seek').value = 3; $('seek').dispatchEvent(new Event('input'))")
        browser.wait("!after.seeking && !before.seeking && Math.abs(after.currentTime - 3) < 0.05")
        assert browser.run("Math.abs(after.currentTime - before.currentTime)") < 0.05

        left, top, width, height = browser.box("#compare")
        assert edge(browser) == pytest.approx(left + width / 2, abs=2)
        assert share_inverted(browser) == pytest.approx(0.5, abs=0.01)
        browser.drag((left + width / 2, top + height / 2), (left + width / 4, top + height / 2))
        assert edge(browser) == pytest.approx(left + width / 4, abs=2)
        assert share_inverted(browser) == pytest.approx(0.75, abs=0.01)
        browser.run("$('border').focus()")
        for _ in range(10):
            browser.press("ArrowRight", 39)
        assert edge(browser) == pytest.approx(left + 0.35 * width, abs=3)
        assert browser.run("$('border').getAttribute('aria-valuetext')") == "35 % before"

        browser.run("$('download').click()")
        wanted = tmp_path / "downloads" / "a clip _b_of bees & more_640x360.mp4"
        until = time.monotonic() + 30
        while not wanted.exists():
            assert time.monotonic() < until, list((tmp_path / "downloads").iterdir())
            time.sleep(0.05)
        job = client.get("/v1/jobs").json()["jobs"][0]
        assert wanted.read_bytes() == client.get(job["links"]["result"]).content
        assert browser.console == []

        address = browser.run("location.href")
        browser.open("about:blank")
        browser.open(address)
        browser.wait("!$('after-layer').hidden && view.shown === 'stills' && $('after-still').complete")
        assert browser.run("[$('after-still').naturalWidth, $('before-still').naturalWidth]") == [640, 320]
        assert edge(browser) == pytest.approx(left + width / 2, abs=2)
        browser.run("$('seek').value = 239; $('seek').dispatchEvent(new Event('input'))")
        browser.wait("$('clock').textContent === 'Frame 240 of 240' && $('after-still').complete")
        browser.run("$('again').click()")
        assert browser.run("[$('drop').hidden, $('job').hidden, $('transport').hidden, location.hash]") == [
            False, True, True, "",
        ]  # fmt: skip


@needs_chromium
@pytest.mark.slow
def test_the_token_is_asked_for_and_all_goes_by_keyboard(tmp_path: Path, clip: Path) -> None:
    with (
        listening(tmp_path, host="0.0.0.0", token=TOKEN) as client,
        browsing(tmp_path, dark=True, width=390, height=800) as browser,
    ):
        browser.open(str(client.base_url))
        browser.wait("$('access').open")
        for typed in ("not the token, and long", TOKEN):
            browser.wait("document.activeElement === $('token') && $('token').value === ''")
            browser.send("Input.insertText", text=typed)
            browser.press("Enter", 13, "\r")
            browser.wait("!$('access').open || !$('access-problem').hidden")
        browser.wait("!$('access').open && models.length")
        browser.wait("$('limits').textContent === 'Up to 2 GiB'")
        assert TOKEN not in browser.run("JSON.stringify({...localStorage, ...sessionStorage}) + document.cookie")
        browser.press("Tab", 9)
        assert browser.run("document.activeElement.id") == "file"
        node = browser.send("DOM.getDocument")["root"]["nodeId"]
        file = browser.send("DOM.querySelector", nodeId=node, selector="#file")["nodeId"]
        browser.send("DOM.setFileInputFiles", nodeId=file, files=[str(clip)])
        browser.wait("view.playable")
        take_toy(browser, "1")
        reached: list[str] = []
        while "submit" not in reached[-1:]:
            browser.press("Tab", 9)
            reached.append(
                browser.run("document.activeElement.name || document.activeElement.id || document.activeElement.type")
            )
            assert len(reached) < 20, reached
        assert {"play", "seek", "scale", "time_factor", "model", "container"} < set(reached)
        browser.press("Enter", 13, "\r")
        browser.wait("!$('after-layer').hidden")
        browser.wait("!$('download').hidden && after.readyState >= 2", 300)
        assert browser.run("view.shown") == "result", "players get the media without the token in a header"
        address = browser.run("$('download').href")
        assert client.get(address).status_code == 200
        assert client.get(address[:-1] + "x").status_code == 401
        assert client.get(address.partition("?")[0]).status_code == 401
        job = client.get(address.split("/result")[0]).status_code
        assert job == 401
        assert client.delete(address.replace("/result", "")).status_code == 401, "it reads one job, and no more"
        assert client.get(re.sub(r"[0-9a-f-]{36}", "00000000-0000-0000-0000-000000000000", address)).status_code == 401
        errors = [line for line in browser.console if "401" not in line]
        assert errors == []


@needs_chromium
@pytest.mark.slow
def test_an_upload_goes_on_after_an_interruption(tmp_path: Path, clip: Path) -> None:
    with clip.open("ab") as file:  # larger, by a box that players skip
        file.write((8 << 20).to_bytes(4) + b"free" + bytes((8 << 20) - 8))
    with listening(tmp_path) as client, browsing(tmp_path) as browser:

        def network(offline: bool, rate: float) -> None:
            browser.send(
                "Network.emulateNetworkConditions",
                offline=offline,
                latency=0,
                downloadThroughput=-1,
                uploadThroughput=rate,
            )

        def offset() -> int:
            return sum(path.stat().st_size for path in (tmp_path / "store" / "uploads").rglob("data"))

        def wait_for_bytes(least: int) -> None:
            until = time.monotonic() + 60
            while offset() < least:
                assert time.monotonic() < until
                time.sleep(0.02)

        start(browser, client)
        network(False, 2e6)
        drop(browser, clip)
        browser.wait("view.playable")
        take_toy(browser)
        browser.run("$('options').requestSubmit()")
        wait_for_bytes(500_000)
        network(True, 2e6)
        browser.wait("$('state').textContent === 'The connection is lost; trying again'")
        kept = offset()
        network(False, 2e6)
        wait_for_bytes(kept + 500_000)
        kept = offset()
        browser.open("about:blank")
        start(browser, client)
        drop(browser, clip)
        browser.wait("view.playable")
        take_toy(browser)
        network(False, -1)
        browser.run("$('options').requestSubmit()")
        browser.wait("location.hash.length > 1")
        assert len(list((tmp_path / "store" / "uploads").iterdir())) == 0, "the same upload was finished and taken"
        identifier = browser.run("location.hash.slice(1)")
        assert (tmp_path / "store" / "jobs" / identifier / "input").read_bytes() == clip.read_bytes()
        browser.run("$('cancel').click()")
        browser.wait("!$('drop').hidden")
        until = time.monotonic() + 20
        while client.get(f"/v1/jobs/{identifier}").status_code != 404:
            assert time.monotonic() < until


@needs_chromium
@pytest.mark.slow
def test_errors_are_the_sentences_of_the_server(tmp_path: Path, clip: Path) -> None:
    none = tmp_path / "letter.mp4"
    none.write_bytes(b"Dear editor,")
    odd = make_clip(tmp_path / "odd.mkv", count=30, codec="ffv1")
    with listening(tmp_path) as client, browsing(tmp_path) as browser:
        start(browser, client)
        drop(browser, none)
        take_toy(browser)
        browser.run("$('options').requestSubmit()")
        browser.wait("!$('problem').hidden")
        assert "is not a readable video" in browser.run("$('problem').textContent")
        assert client.get("/v1/jobs").json()["jobs"] == []
        browser.run("$('again').click()")
        drop(browser, odd)
        browser.run("$('options').requestSubmit()")
        browser.wait("!$('download').hidden", 120)
        browser.wait("view.shown === 'stills' && $('play').hidden && $('after-still').naturalWidth > 0")
        assert browser.run("$('problem').hidden")
        job = client.get("/v1/jobs").json()["jobs"][0]
        assert wait_for(client, job["id"])["state"] == "done"
        assert client.head(f"/v1/uploads/{job['id']}", headers=TUS).status_code == 404
