"""Checks of uploads in a process of their own: errors come back, and what ends the process is an error too."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stvsr import MediaError, RequestError, UpscaleRequest
from stvsr.engine.serving import checks
from stvsr.engine.serving.checks import VideoChecker, VideoLimits
from stvsr.engine.serving.problems import Problem

from tests.support.media import make_video, pan
from tests.support.toy import write_toy

LIMITS = VideoLimits(64 * 48, 7)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture
def checker() -> Iterator[VideoChecker]:
    with VideoChecker(LIMITS) as opened:
        yield opened


def request_for(source: Path, toy: Path, **options: Any) -> UpscaleRequest:
    return UpscaleRequest(input=source, output=source.with_name("out.mp4"), model=toy, **{"scale": 2, **options})


def test_good_and_bad_videos(checker: VideoChecker, tmp_path: Path, toy: Path) -> None:
    good = make_video(tmp_path / "good.mp4", pan(7))
    checker.check(request_for(good, toy))
    with pytest.raises(RequestError, match="has 8 frames, and this server takes 7"):
        checker.check(request_for(make_video(tmp_path / "long.mp4", pan(8)), toy))
    with pytest.raises(RequestError, match="toy"):
        checker.check(request_for(good, toy, scale=9))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(MediaError, match=r"text\.mp4"):
        checker.check(request_for(tmp_path / "text.mp4", toy))
    checker.check(request_for(good, toy))


# A module that ends the process that imports it, as often as the file beside it says.
MORTAL = """
import os
from pathlib import Path

path = Path(__file__).with_name("left")
left = int(path.read_text())
path.write_text(str(left - 1))
if left > 0:
    os._exit(9)


def answer():
    return 42
"""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def answer() -> int:
    return 42


def test_what_ends_the_process_is_refused() -> None:
    with VideoChecker(LIMITS, functions=__name__) as checker:
        with pytest.raises(MediaError, match=r"bad\.mp4 cannot be read: the process that reads it crashes"):
            checker.call("bad.mp4", "die")
        assert checker.call("good.mp4", "answer") == 42


def test_a_process_that_something_else_has_ended_is_started_again(
    checker: VideoChecker, tmp_path: Path, toy: Path
) -> None:
    good = request_for(make_video(tmp_path / "good.mp4", pan(7)), toy)
    checker.check(good)
    os.kill(checker._worker._process.pid or 0, signal.SIGKILL)
    checker.check(good)


@pytest.mark.parametrize(("deaths", "starts"), [(4, True), (5, False)])
def test_deaths_before_a_call_are_not_those_of_a_video(
    deaths: int, starts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "left").write_text(str(deaths))
    (tmp_path / "mortal.py").write_text(MORTAL)
    monkeypatch.syspath_prepend(str(tmp_path))  # of the process too
    with VideoChecker(LIMITS, functions="mortal") as checker:
        if not starts:
            with pytest.raises(Problem, match=r"Videos cannot be read now"):
                checker.call("good.mp4", "answer")
        assert checker.call("good.mp4", "answer") == 42


def test_a_check_has_a_time_limit(tmp_path: Path, toy: Path) -> None:
    good = request_for(make_video(tmp_path / "good.mp4", pan(7)), toy)
    with VideoChecker(LIMITS) as checker:
        checker.check(good)
        os.kill(checker._worker._process.pid or 0, signal.SIGSTOP)
        checker._most_s = 0.2
        began = time.monotonic()
        with pytest.raises(MediaError, match=r"is not read within 0 seconds: convert it, or send it later"):
            checker.check(good)
        assert time.monotonic() - began < 60
        checker._most_s = 60
        checker.check(good)


def test_the_start_of_the_process_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_START_S", 0.001)
    with VideoChecker(LIMITS, functions=__name__) as checker:
        with pytest.raises(Problem, match=r"Videos cannot be read now"):
            checker.call("good.mp4", "answer")
        monkeypatch.undo()
        assert checker.call("good.mp4", "answer") == 42
