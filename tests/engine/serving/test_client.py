"""The client: jobs, frames and streams of a server, interruptions, and errors in the server's words."""

import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import stvsr
from stvsr import Backend, BackendError, Client, MediaError, RequestError, ServerError, Upscaler, one_scene

from tests.support.media import make_video, pan

pytest.importorskip("fastapi", reason="stvsr[serve] is not installed")
pytest.importorskip("httpx2", reason="stvsr[client] is not installed")
pytest.importorskip("websockets", reason="stvsr[client] is not installed")

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from stvsr.engine.serving import client_upload

from tests.support.servers import listening, serving, wait_until, workers_of

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("server"), token=TOKEN, most_streams=2, most_pixels=64 * 48) as url:
        yield url


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    with Client(server, TOKEN) as opened:
        yield opened


def clip_of(folder: Path, frames: int = 7) -> Path:
    return make_video(folder / "clip.mp4", pan(frames))


def frames_in(video: Path) -> int:
    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0))


def images(count: int, dtype: Any = np.uint8) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (count, 3, 24, 32), dtype))


def expected(models: Path, frames: list[np.ndarray], times: tuple[Fraction, ...]) -> list[np.ndarray]:
    with Upscaler(models, Backend(device="cpu", threads=1)) as upscaler:
        return list(upscaler.frames(one_scene(frames, times), (48, 64)))


# --- jobs ---


@pytest.mark.usefixtures("models")
@pytest.mark.slow
def test_a_job_that_waits_for_long_is_no_lost_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stvsr.engine.serving.server._SILENCE_S", 0.2)
    before = set(workers_of(os.getpid()))
    with serving(tmp_path) as url, Client(url) as sender, Client(url, timeout_s=2, patience_s=0.5) as client:
        job = sender.create(clip_of(tmp_path), model="toy", scale=2)
        workers = set(workers_of(os.getpid())) - before
        assert workers

        def send(number: int) -> None:
            for process in workers:
                os.kill(process, number)

        send(signal.SIGSTOP)
        timer = threading.Timer(5, send, [signal.SIGCONT])
        timer.start()
        try:
            assert client.wait(job.id).state == "done"
        finally:
            timer.cancel()
            send(signal.SIGCONT)


def test_a_video_is_upscaled(client: Client, tmp_path: Path) -> None:
    seen: list[stvsr.ServerJob] = []
    output = tmp_path / "out.mp4"
    report = client.upscale(clip_of(tmp_path), output, seen.append, model="toy", size=(128, 96), time_factor=3)
    assert (report["frames_out"], report["size_out"]) == (21, [128, 96])
    assert frames_in(output) == 21
    assert [job.state for job in seen][-1] == "done"
    assert seen[-1].frames_done == seen[-1].frames_total == 7
    assert list(client.jobs()) == [], "the job was deleted"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(RequestError, match="exists already"):
        client.upscale(clip_of(tmp_path), output)


def test_jobs_are_listed_read_and_deleted(client: Client, tmp_path: Path) -> None:
    clip = clip_of(tmp_path)
    jobs = [client.create(clip, model="toy", scale=2) for _ in range(3)]
    assert [job.id for job in client.jobs()] == [job.id for job in jobs]
    done = [client.wait(job.id) for job in jobs]
    assert client.job(jobs[0].id) == done[0]
    assert [job.id for job in client.jobs("done")] == [job.id for job in jobs]
    assert client.download(jobs[1].id, tmp_path / "second.mp4").stat().st_size > 1000
    for job in jobs:
        client.delete(job.id)
    assert list(client.jobs()) == []
    with pytest.raises(ServerError, match="no such job") as missing:
        client.job(jobs[0].id)
    assert (missing.value.status, missing.value.code) == (404, "not-found")
    with pytest.raises(RequestError, match=r"'\.\./x' is no job"):
        client.job("../x")
    assert "toy" in [model["name"] for model in client.models()]


def test_a_job_that_is_deleted_or_fails_ends_the_wait(client: Client, tmp_path: Path) -> None:
    job = client.create(clip_of(tmp_path, 600), model="toy", scale=2)
    with pytest.raises(ServerError, match=r"is (queued|running), and has no result") as unfinished:
        client.download(job.id, tmp_path / "out.mp4")
    assert unfinished.value.status == 409
    threading.Timer(0.5, client.delete, [job.id]).start()
    with pytest.raises(ServerError, match="no such job"):
        client.wait(job.id)


def test_wrong_requests_are_refused_in_the_words_of_the_server(client: Client, server: str, tmp_path: Path) -> None:
    clip = clip_of(tmp_path)
    with pytest.raises(ServerError, match="There is no model 'none' here") as refused:
        client.create(clip, model="none")
    assert (refused.value.status, refused.value.code) == (422, "bad-request")
    with pytest.raises(ServerError, match="'toy' enlarges x1 to x8"):
        client.create(clip, model="toy", scale=9)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ServerError) as unreadable:
        client.create(tmp_path / "text.mp4", model="toy")
    assert unreadable.value.status == 400
    with pytest.raises(MediaError, match="No such file"):
        client.create(tmp_path / "none.mp4")
    with pytest.raises(RequestError, match="is a folder"):
        client.create(tmp_path)
    with Client(server, "another-token-of-length", patience_s=0) as stranger:
        for call in (stranger.models, lambda: stranger.frames(images(1)), lambda: list(stranger.stream(images(1)))):
            with pytest.raises(ServerError, match="Send 'Authorization: Bearer TOKEN'") as unknown:
                call()
            assert unknown.value.status == 401


def test_a_server_that_cannot_be_reached() -> None:
    with Client("http://127.0.0.1:1", patience_s=0) as client:
        for call in (client.models, lambda: list(client.stream(images(1)))):
            with pytest.raises(ServerError, match=r"http://127.0.0.1:1 cannot be reached") as lost:
                call()
            assert lost.value.status is None
    with pytest.raises(RequestError, match=r"'127\.0\.0\.1:8000' is not the address of a server"):
        Client("127.0.0.1:8000")


@pytest.mark.parametrize("package", ["httpx2", "websockets"])
def test_the_extra_is_named_when_a_package_is_missing(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.split(".")[0] == package:
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    assert stvsr.Client is Client
    with pytest.raises(BackendError, match=r'pip install "stvsr\[client\]"'), Client("http://127.0.0.1:1") as client:
        list(client.stream(images(1)))


# --- interruptions ---


def test_requests_are_tried_again_while_a_server_is_busy() -> None:
    app, answers = FastAPI(), itertools.count()

    @app.get("/v1/models")
    def models() -> JSONResponse:
        match next(answers):
            case 0:
                return JSONResponse({"detail": "busy", "title": "busy"}, 429, {"Retry-After": "1"})
            case 1:
                return JSONResponse({"detail": "starting", "title": "not-ready"}, 503)
            case 2:
                return JSONResponse({"models": [{"name": "toy"}]})
        return JSONResponse({"detail": "The queue is full.", "title": "busy"}, 429, {"Retry-After": "100"})

    with listening(app) as url, Client(url, patience_s=10) as client:
        began = time.monotonic()
        assert client.models() == [{"name": "toy"}]
        assert 1 < time.monotonic() - began < 10
        with pytest.raises(ServerError, match="The queue is full") as busy:
            client.models()  # for longer than the client's patience
        assert (busy.value.status, busy.value.retry_after_s) == (429, 100)


def test_a_download_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    """The server cuts every answer off after a third of the video."""
    video = np.random.default_rng(0).bytes(3_000_000)
    starts: list[int] = []
    app = FastAPI()

    @app.get("/v1/jobs/{identifier}/result")
    def result(request: Request) -> Response:
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        starts.append(start)
        if start >= len(video):
            return Response(status_code=416, headers={"Content-Range": f"bytes */{len(video)}"})

        async def part() -> AsyncIterator[bytes]:
            yield video[start : start + 1_000_001]
            if start + 1_000_001 < len(video):
                raise ConnectionError

        headers = {"Content-Length": str(len(video) - start)}
        return StreamingResponse(part(), 206 if start else 200, headers)

    identifier = "00000000-0000-0000-0000-000000000000"
    part_file = tmp_path / f".out.mp4.{identifier}.part"
    with listening(app) as url, Client(url) as client:
        assert client.download(identifier, tmp_path / "out.mp4").read_bytes() == video
        assert starts[0] == 0
        assert starts == sorted(set(starts)), "nothing comes twice"
        part_file.write_bytes(video[:2_500_000])  # of a process that has ended
        starts.clear()
        client.download(identifier, tmp_path / "out.mp4", overwrite=True)
        assert ((tmp_path / "out.mp4").read_bytes(), starts) == (video, [2_500_000])
        part_file.write_bytes(video)
        assert client.download(identifier, tmp_path / "out.mp4", overwrite=True).read_bytes() == video
        assert not part_file.exists()
        with pytest.raises(MediaError, match="cannot be written"):
            client.download(identifier, tmp_path / "none" / "out.mp4")


def test_a_large_video_is_upscaled(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server takes it in parts."""
    clip = clip_of(tmp_path, 60)
    monkeypatch.setattr(client_upload, "PART_BYTES", 1 + clip.stat().st_size // 3)
    monkeypatch.setattr("stvsr.engine.serving.client.LARGE_BYTES", 1)
    requests: list[str] = []
    opened = client._connection.open

    def record(method: str, path: str, **options: Any) -> Any:
        requests.append(f"{method} {path.split('/')[2]}")
        return opened(method, path, **options)

    monkeypatch.setattr(client._connection, "open", record)
    report = client.upscale(clip, tmp_path / "out.mp4", model="toy", scale=2)
    assert report["frames_in"] == 60
    assert requests[:6] == ["OPTIONS uploads", "POST uploads", *["PATCH uploads"] * 3, "POST jobs"]


def test_large_videos_are_uploaded_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server fails within the second part, and does not know its own offset after the third one."""
    video = tmp_path / "large.mp4"
    video.write_bytes(np.random.default_rng(0).bytes(250_000))
    monkeypatch.setattr(client_upload, "PART_BYTES", 100_000)
    monkeypatch.setattr("stvsr.engine.serving.client.LARGE_BYTES", 200_000)
    stored, jobs, requests = bytearray(), [], []
    app = FastAPI()

    @app.api_route("/v1/uploads", methods=["OPTIONS", "POST"])
    def uploads(request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Tus-Resumable": "1.0.0"})
        assert request.headers["upload-length"] == "250000"
        return Response(status_code=201, headers={"Location": "/v1/uploads/the-upload"})

    @app.api_route("/v1/uploads/the-upload", methods=["HEAD", "PATCH"])
    async def upload(request: Request) -> Response:
        assert request.headers["tus-resumable"] == "1.0.0"
        requests.append(request.method)
        if request.method == "HEAD":
            return Response(headers={"Upload-Offset": str(len(stored))})
        assert request.headers["content-type"] == "application/offset+octet-stream"
        if int(request.headers["upload-offset"]) != len(stored):
            return JSONResponse({"detail": "another offset", "title": "wrong-offset"}, 409)
        body = await request.body()
        if requests.count("PATCH") == 2:
            stored.extend(body[:30_000])
            return Response(status_code=503)
        stored.extend(body)
        if requests.count("PATCH") == 3:  # the answer is lost, but not the bytes
            return JSONResponse({"detail": "locked", "title": "wrong-offset"}, 409)
        return Response(status_code=204, headers={"Upload-Offset": str(len(stored))})

    @app.post("/v1/jobs")
    async def create(request: Request) -> JSONResponse:
        jobs.append((await request.json(), request.headers["idempotency-key"]))
        return JSONResponse({"id": "x", "state": "queued", "frames_done": 0, "frames_total": None}, 202)

    with listening(app) as url, Client(url) as client:
        assert client.create(video, key="once", scale=2, size=(64, 48)).state == "queued"
    assert bytes(stored) == video.read_bytes()
    assert jobs == [({"upload": "the-upload", "scale": "2", "size": "64x48"}, "once")]
    assert requests == ["PATCH", "PATCH", "HEAD", "PATCH", "HEAD", "PATCH"]


# --- frames ---


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_frames_in_one_request(client: Client, models: Path, dtype: Any) -> None:
    frames = images(3, dtype)
    new = client.frames(frames, model="toy", scale=2, times=(0, Fraction(1, 3)))
    assert {(frame.dtype, frame.shape) for frame in new} == {(np.dtype(dtype), (3, 48, 64))}
    scale = 257 if dtype == np.uint8 else 1
    for actual, one in zip(new, expected(models, frames, (Fraction(0), Fraction(1, 3))), strict=True):
        np.testing.assert_array_equal(actual, np.rint(one / scale))


def test_frames_of_floats_are_sent_with_16_bits(client: Client) -> None:
    frames = [frame / np.float32(65535) for frame in images(2, np.uint16)]
    (first, second) = client.frames(frames, model="toy", size=(32, 24), time_factor=1)
    np.testing.assert_array_equal([first, second], images(2, np.uint16))


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "There are no frames"),
        ([np.zeros((3, 4, 4), np.uint8), np.zeros((3, 4, 5), np.uint8)], "different sizes or types"),
        ([np.zeros((3, 4, 4), np.uint8), np.zeros((3, 4, 4), np.uint16)], "different sizes or types"),
        ([np.zeros((4, 4, 3), np.uint8)], "shape .3, height, width."),
        ([np.zeros((3, 4, 4), np.int64)], "values of int64"),
        ([np.full((3, 4, 4), 7.0)], "values from 7 to 7"),
    ],
)
def test_wrong_frames_are_refused(client: Client, frames: list[np.ndarray], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        client.frames(frames)
    if frames:
        with pytest.raises(RequestError, match=message):
            list(client.stream(frames, model="toy"))


def test_a_live_stream(client: Client, models: Path) -> None:
    frames, arrived = images(5), threading.Semaphore(3)

    def camera() -> Iterator[np.ndarray]:
        for frame in frames:
            assert arrived.acquire(timeout=30)
            yield frame

    new = []
    for frame in client.stream(camera(), model="toy", scale=2, time_factor=2):
        new.append(frame)
        arrived.release()  # the next frame exists when this one has come back
    for actual, one in zip(new, expected(models, frames, (Fraction(0), Fraction(1, 2))), strict=True):
        np.testing.assert_array_equal(actual, np.rint(one / 257))
    assert list(client.stream(iter([]), model="toy")) == []


def senders() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "stvsr-send"]


def test_a_stream_that_is_left_or_fails_leaves_nothing(client: Client) -> None:
    endless = itertools.repeat(images(1)[0])
    for _ in range(3):
        stream = client.stream(endless, model="toy", scale=8, time_factor=4)
        assert next(stream).shape == (3, 192, 256)
        time.sleep(0.2)  # the sender waits for room
        stream.close()
    wait_until(lambda: not senders())

    def failing() -> Iterator[np.ndarray]:
        yield from images(3)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(client.stream(failing(), model="toy", scale=2))
    with pytest.raises(ServerError, match="65x48 pixels, and this server takes 3072") as refused:
        list(client.stream(itertools.repeat(np.zeros((3, 48, 65), np.uint8)), model="toy", scale=2))
    assert (refused.value.status, refused.value.code) == (422, "bad-request")
    with pytest.raises(ServerError, match="There is no model 'none'"):
        list(client.stream(images(1), model="none"))
    wait_until(lambda: not senders())
    wait_until(lambda: len(list(client.stream(images(2), model="toy", scale=2))) == 4)


def test_a_stream_waits_until_the_server_has_room(client: Client, server: str) -> None:
    with Client(server, TOKEN, patience_s=0) as impatient:
        first, second = (client.stream(itertools.repeat(images(1)[0]), model="toy", scale=2) for _ in range(2))
        next(first), next(second)
        with pytest.raises(ServerError, match="Too many streams") as busy:
            list(impatient.stream(images(2), model="toy", scale=2))
        assert (busy.value.status, busy.value.retry_after_s) == (429, 1)
        threading.Timer(0.5, first.close).start()
        assert len(list(client.stream(images(2), model="toy", scale=2))) == 4
        second.close()
