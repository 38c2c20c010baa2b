"""Live streams: through workers as asynchronous iterators, and over WebSockets."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, suppress
from fractions import Fraction
from pathlib import Path
from socket import SHUT_RDWR
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from stvsr import Backend, Upscaler, one_scene

pytest.importorskip("fastapi", reason="stvsr[serve] is not installed")
pytest.importorskip("websockets", reason="stvsr[client] is not installed")

from stvsr.engine.serving.frame_options import FrameOptions
from stvsr.engine.serving.problems import Problem
from stvsr.engine.serving.settings import Settings
from stvsr.engine.serving.streams import FrameStreams, NewFrame, StreamFacts
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.support.servers import serving, wait_until, workers_of

RAW = {"format": "rgb24", "width": 32, "height": 24, "model": "toy", "scale": 2}
TOKEN = "a-token-of-some-length"


def options(**changes: Any) -> FrameOptions:
    return FrameOptions.model_validate({**RAW, **changes})


def clip(count: int, width: int = 32, height: int = 24) -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 255, (count, height, width, 3), np.uint8)
    return [frame.tobytes() for frame in pixels]


def expected(models: Path, frames: list[bytes], time_factor: int = 2) -> list[bytes]:
    inputs = [np.frombuffer(frame, np.uint8).reshape(24, 32, 3).transpose(2, 0, 1) for frame in frames]
    times = tuple(Fraction(n, time_factor) for n in range(time_factor))
    with Upscaler(models, Backend(device="cpu", threads=1)) as upscaler:
        new = upscaler.frames(one_scene(inputs, times), (48, 64))
        return [np.rint(frame.transpose(1, 2, 0) / 257).astype(np.uint8).tobytes() for frame in new]


# --- as asynchronous iterators ---


@pytest.fixture(scope="module")
def streams(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrameStreams]:
    settings = Settings(tmp_path_factory.mktemp("streams"), most_streams=4, warm=("toy",))
    with FrameStreams(settings, [Backend(device="cpu", threads=1)]) as opened:
        yield opened
        assert opened._streams.total() == 0


async def camera(frames: list[bytes], taken: list[int] | None = None, every_s: float = 0) -> AsyncIterator[bytes]:
    for number, frame in enumerate(frames):
        if taken is not None:
            taken.append(number)
        await asyncio.sleep(every_s)
        yield frame


async def collect(results: AsyncIterator[StreamFacts | NewFrame]) -> tuple[StreamFacts | None, list[bytes]]:
    facts, new, seconds = None, [], 0.0
    async for result in results:
        if isinstance(result, StreamFacts):
            facts = result
        else:
            new.append(result.data)
            assert result.seconds > seconds, "they are counted from the start"
            seconds = result.seconds
    return facts, new


def test_a_stream_equals_frames_in_memory(streams: FrameStreams, models: Path) -> None:
    frames = clip(6)
    facts, new = asyncio.run(collect(streams.run(options(time_factor=3), camera(frames))))
    assert facts == (64, 48, ("0", "1/3", "2/3"))
    assert new == expected(models, frames, 3)
    assert asyncio.run(collect(streams.run(options(), camera([])))) == (None, [])


def test_large_frames_pass_through_memory(streams: FrameStreams) -> None:
    """Frames beyond the size of a message arrive as they were sent, also after those of another size."""
    large, small = clip(3, 160, 144), clip(3)

    async def run() -> None:
        for frames, width, height in ((large, 160, 144), (small, 32, 24), (large[::-1], 160, 144)):
            same = options(width=width, height=height, scale=1, time_factor=1)
            assert (await collect(streams.run(same, camera(frames))))[1] == frames

    asyncio.run(run())


def test_streams_at_once_are_fair(streams: FrameStreams, models: Path) -> None:
    """A short stream beside three endless ones waits for about one frame of each between two of its own."""
    frames = clip(6)
    counts = [0, 0, 0]
    ended = asyncio.Event()

    async def endless(number: int) -> list[bytes]:
        async def source() -> AsyncIterator[bytes]:
            yield from_start
            while not ended.is_set():
                yield from_start

        from_start, new = frames[number], []
        async for result in streams.run(options(), source()):
            if isinstance(result, NewFrame):
                counts[number] += 1
                new.append(result.data)
        return new

    async def run() -> None:
        others = [asyncio.create_task(endless(number)) for number in range(3)]
        while min(counts) < 3:
            await asyncio.sleep(0.01)
        before = list(counts)
        _, new = await collect(streams.run(options(), camera(frames)))
        during = [after - count for after, count in zip(counts, before, strict=True)]
        ended.set()
        assert new == expected(models, frames)
        assert 4 <= min(during) <= max(during) <= 40, during
        for number, results in enumerate(await asyncio.gather(*others)):
            assert set(results) == set(expected(models, [frames[number]], 1)), "each has its own frames"

    asyncio.run(run())


def test_input_frames_wait_while_new_ones_are_not_taken(streams: FrameStreams) -> None:
    async def run() -> None:
        taken: list[int] = []
        async with aclosing(streams.run(options(time_factor=1), camera(clip(1) * 1000, taken))) as results:
            assert isinstance(await anext(results), StreamFacts)
            for _ in range(3):
                await anext(results)
            await asyncio.sleep(0.5)
            assert 5 <= len(taken) <= 14, "of a thousand"
        count = len(taken)
        await asyncio.sleep(0.1)
        assert len(taken) == count, "the stream has ended"

    asyncio.run(run())


def test_there_are_only_so_many_streams(streams: FrameStreams) -> None:
    async def run() -> None:
        slow = [asyncio.create_task(collect(streams.run(options(), camera(clip(3), every_s=0.2)))) for _ in range(4)]
        await asyncio.sleep(0.05)
        with pytest.raises(Problem) as refused:
            await collect(streams.run(options(), camera(clip(2))))
        assert (refused.value.status, refused.value.headers) == (429, {"retry_after": "1"})
        assert [len(new) for _, new in await asyncio.gather(*slow)] == [6] * 4
        assert len((await collect(streams.run(options(), camera(clip(2)))))[1]) == 4

    asyncio.run(run())


def test_errors_end_a_stream(streams: FrameStreams) -> None:
    async def fail(frames: list[bytes]) -> AsyncIterator[bytes]:
        async for frame in camera(frames):
            yield frame
        raise ZeroDivisionError

    async def run() -> None:
        with pytest.raises(ZeroDivisionError):
            await collect(streams.run(options(), fail(clip(2))))
        with pytest.raises(Problem) as refused:
            await collect(streams.run(options(), camera([*clip(3), b"short"])))
        assert (refused.value.status, refused.value.code) == (422, "bad-request")
        assert "5 bytes" in refused.value.detail
        task = asyncio.create_task(collect(streams.run(options(), camera(clip(2), every_s=100))))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert streams._streams.total() == 0

    asyncio.run(run())


@pytest.mark.slow
def test_a_worker_that_is_silent_is_replaced(models: Path, tmp_path: Path) -> None:
    """A worker that is stopped answers no more; it is killed after a second, and a new one goes on."""

    async def run(streams: FrameStreams) -> None:
        before = set(workers_of(os.getpid()))
        assert len((await collect(streams.run(options(), camera(clip(2)))))[1]) == 4
        streams._workers._task_s = 1.0
        slow = collect(streams.run(options(), camera(clip(2), every_s=1.5)))
        assert len((await slow)[1]) == 4, "waiting for a client is no silence"
        (worker,) = set(workers_of(os.getpid())) - before
        os.kill(worker, signal.SIGSTOP)
        with pytest.raises(Problem, match="The worker of this stream has ended"):
            await collect(streams.run(options(), camera(clip(2))))
        streams._workers._task_s = 600.0
        assert len((await collect(streams.run(options(), camera(clip(2)))))[1]) == 4

    with FrameStreams(Settings(tmp_path), [Backend(device="cpu", threads=1)]) as streams:
        asyncio.run(run(streams))


def test_a_stream_after_the_end_of_the_workers_ends(tmp_path: Path) -> None:
    with FrameStreams(Settings(tmp_path), [Backend(device="cpu", threads=1)]) as streams:
        pass
    with pytest.raises(Problem, match="The worker of this stream has ended"):
        asyncio.run(collect(streams.run(options(), camera(clip(2)))))


# --- over WebSockets ---


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("server"), most_streams=2, most_idle_s=2.0) as url:
        yield url


def address(server: str, **changes: Any) -> str:
    return f"ws{server.removeprefix('http')}/v1/stream?{urlencode({**RAW, **changes})}"


def wait_for_room(server: str) -> None:
    """Wait until the server has no stream."""

    def has_room() -> bool:
        try:
            with connect(address(server)), connect(address(server)):
                return True
        except InvalidStatus:
            return False

    wait_until(has_room)


def read_all(socket: Any) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Return the texts and the frames that a server sends until it closes."""
    texts: list[dict[str, Any]] = []
    frames: list[bytes] = []
    with suppress(ConnectionClosed):
        while True:
            message = socket.recv(60)
            if isinstance(message, str):
                texts.append(json.loads(message))
            else:
                frames.append(message)
    return texts, frames


def test_frames_come_back_through_a_websocket(server: str, models: Path) -> None:
    frames = clip(5)
    with connect(address(server), compression=None) as socket:
        for frame in frames[:2]:
            socket.send(frame)
        assert json.loads(socket.recv(30)) == {"type": "opened", "width": 64, "height": 48, "times": ["0", "1/2"]}
        first = [socket.recv(30), socket.recv(30)]
        for frame in frames[2:]:
            socket.send(frame)
        socket.send('{"type": "end"}')
        texts, rest = read_all(socket)
        assert (texts, socket.close_code) == ([{"type": "done"}], 1000)
    assert first + rest == expected(models, frames)


@pytest.mark.parametrize(
    ("message", "status", "words"),
    [
        (b"short", 422, "5 bytes, and a frame of 32x24 pixels"),
        ("{}", 422, 'or the text {"type": "end"}'),
        ("[]", 422, 'or the text {"type": "end"}'),
        ("end", 422, 'or the text {"type": "end"}'),
    ],
)
def test_wrong_messages_end_a_stream_with_a_problem(server: str, message: Any, status: int, words: str) -> None:
    with connect(address(server)) as socket:
        socket.send(message)
        texts, _ = read_all(socket)
        assert texts[-1]["type"] == "problem"
        assert texts[-1]["problem"]["status"] == status
        assert words in texts[-1]["problem"]["detail"]
        assert socket.close_code == 4000 + status
    wait_for_room(server)


@pytest.mark.parametrize(
    ("changes", "headers", "status", "words"),
    [
        ({"model": "none"}, {}, 422, "There is no model 'none'"),
        ({"unknown": 1}, {}, 422, "unknown"),
        ({"format": "png"}, {}, 422, "state their own size"),
        ({}, {"Origin": "http://example.com"}, 403, "Pages of other servers"),
    ],
)
def test_a_wrong_request_opens_no_stream(
    server: str, changes: dict[str, Any], headers: dict[str, str], status: int, words: str
) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(address(server, **changes), additional_headers=headers):
        pass
    answer = refused.value.response
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert words in json.loads(answer.body or b"")["detail"]


def test_a_page_of_the_server_may_open_a_stream(server: str) -> None:
    with connect(address(server), additional_headers={"Origin": server}) as socket:
        socket.send('{"type": "end"}')
        assert read_all(socket) == ([{"type": "done"}], [])


def test_clients_that_go_away_free_their_streams(server: str) -> None:
    for _ in range(3):
        with connect(address(server)), connect(address(server)) as cut_off:
            with pytest.raises(InvalidStatus) as refused, connect(address(server)):
                pass
            assert refused.value.response.status_code == 429
            assert refused.value.response.headers["retry-after"] == "1"
            for frame in clip(3):
                cut_off.send(frame)
            cut_off.socket.shutdown(SHUT_RDWR)
        wait_for_room(server)


def test_a_client_that_sends_nothing_is_closed(server: str) -> None:
    with connect(address(server)) as socket:
        texts, _ = read_all(socket)
    assert (texts[0]["problem"]["status"], texts[0]["problem"]["title"]) == (408, "idle")


def send_often(socket: Any, frame: bytes, count: int) -> None:
    for _ in range(count):
        socket.send(frame)


def test_a_client_that_reads_nothing_is_closed(server: str) -> None:
    """Its frames are not taken without end, and its stream ends."""
    frame = clip(1, 256, 256)[0]
    changes = {"width": 256, "height": 256, "scale": 4, "time_factor": 1}
    sockets = connect(address(server, **changes), compression=None, max_queue=1, max_size=None)
    with sockets as socket, pytest.raises(ConnectionClosed):
        send_often(socket, frame, 500)
    wait_for_room(server)


def test_a_token_is_asked_for(models: Path, tmp_path: Path) -> None:
    with serving(tmp_path, host="0.0.0.0", token=TOKEN) as url:
        for headers in ({}, {"Authorization": "Bearer"}, {"Authorization": f"Bearer {TOKEN[:-1]}"}):
            with pytest.raises(InvalidStatus) as refused, connect(address(url), additional_headers=headers):
                pass
            assert refused.value.response.status_code == 401
        admitted = {"Authorization": f"Bearer {TOKEN}"}
        with pytest.raises(InvalidStatus) as refused, connect(address(url, model="none"), additional_headers=admitted):
            pass
        assert refused.value.response.status_code == 422
