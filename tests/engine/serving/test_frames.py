"""Frames in a request: PNG images and raw pixels become new frames, and wrong ones a clear answer."""

import json
import os
import signal
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr import Backend, Upscaler, one_scene

pytest.importorskip("fastapi", reason="stvsr[serve] is not installed")
pytest.importorskip("httpx2", reason="stvsr[client] is not installed")

from fastapi.testclient import TestClient
from stvsr.engine.media.png import decode_png, encode_png, png_to_rgb
from stvsr.engine.media.png_files import split_pngs
from stvsr.engine.serving.frame_coding import encode_frame
from stvsr.engine.serving.frame_formats import FrameFormat

from tests.support.commands import assert_one_clear_error, stvsr
from tests.support.servers import LOCAL, app_of, wait_until, workers_of

HALF = (Fraction(0), Fraction(1, 2))
RAW: dict[str, Any] = {"format": "rgb24", "width": 32, "height": 24}
LIMIT = 1 << 20


@pytest.fixture(scope="module")
def client(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("server")
    app = app_of(folder, most_pixels=64 * 48, most_frames_bytes=LIMIT, most_streams=2, warm=("toy",))
    with TestClient(app, base_url=LOCAL, client=("127.0.0.1", 1)) as opened:
        yield opened


def clip(count: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (count, 24, 32, 3), dtype)


def post(client: TestClient, content: bytes, **options: Any) -> Any:
    scale = {} if "size" in options else {"scale": 2}
    return client.post("/v1/frames", content=content, params={"model": "toy", **scale, **options})


def expected(models: Path, frames: np.ndarray, times: tuple[Fraction, ...], size: tuple[int, int]) -> np.ndarray:
    with Upscaler(models, Backend(device="cpu", threads=1)) as upscaler:
        inputs = one_scene([frame.transpose(2, 0, 1) for frame in frames], times)
        return np.stack([frame.transpose(1, 2, 0) for frame in upscaler.frames(inputs, size)])


def in_eight_bits(frames: np.ndarray) -> np.ndarray:
    return np.rint(frames / 257).astype(np.uint8)


def test_raw_frames(client: TestClient, models: Path) -> None:
    frames = clip(2)
    answer = post(client, frames.tobytes(), **RAW)
    assert answer.status_code == 200, answer.text
    headers = {name: answer.headers[f"stvsr-{name}"] for name in ("frames", "width", "height")}
    assert headers == {"frames": "4", "width": "64", "height": "48"}
    assert answer.headers["content-type"] == "application/octet-stream"
    assert float(answer.headers["server-timing"].removeprefix("session;dur=")) > 0
    actual = np.frombuffer(answer.content, np.uint8).reshape(4, 48, 64, 3)
    np.testing.assert_array_equal(actual, in_eight_bits(expected(models, frames, HALF, (48, 64))))


def test_raw_frames_of_16_bits(client: TestClient, models: Path) -> None:
    frames = clip(3, np.uint16)
    answer = post(client, frames.astype("<u2").tobytes(), **RAW | {"format": "rgb48le"}, times="0,1/3", size="50x40")
    actual = np.frombuffer(answer.content, "<u2").reshape(6, 40, 50, 3)
    np.testing.assert_array_equal(actual, expected(models, frames, (Fraction(0), Fraction(1, 3)), (40, 50)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_images(client: TestClient, models: Path, dtype: Any) -> None:
    frames = clip(2, dtype)
    answer = post(client, b"".join(map(encode_png, frames)))
    assert answer.headers["content-type"] == "application/octet-stream"
    images = [decode_png(image) for image in split_pngs(answer.content)]
    assert {image.format.name for image in images} == {"rgb24" if dtype == np.uint8 else "rgb48be"}
    levels = np.iinfo(dtype).max
    actual = np.rint(np.stack([png_to_rgb(image).transpose(1, 2, 0) for image in images]) * levels)
    new = expected(models, frames, HALF, (48, 64))
    np.testing.assert_allclose(actual, in_eight_bits(new) if dtype == np.uint8 else new, atol=1)
    assert post(client, encode_png(frames[0]), time_factor=1).headers["content-type"] == "image/png"


def test_every_level_is_rounded() -> None:
    levels = np.arange(1 << 16, dtype=np.uint16)
    frame = np.stack([levels, levels[::-1], np.roll(levels, 7)]).reshape(3, 256, 256)
    pixels = np.frombuffer(encode_frame(frame, FrameFormat("rgb24", 256, 256), 8), np.uint8).reshape(256, 256, 3)
    np.testing.assert_array_equal(pixels, in_eight_bits(frame).transpose(1, 2, 0))


def test_scenes_are_cut_on_request(client: TestClient, models: Path) -> None:
    patches = clip(2)[:, ::4, ::4].repeat(4, 1).repeat(4, 2) // 4
    patches[1] += 180
    scenes = np.stack([moved for patch in patches for moved in (patch, np.roll(patch, 1, axis=1))])
    options = {**RAW, "scene_threshold": 0.3}
    actual = np.frombuffer(post(client, scenes.tobytes(), **options).content, np.uint8).reshape(8, 48, 64, 3)
    parts = [in_eight_bits(expected(models, scene, HALF, (48, 64))) for scene in (scenes[:2], scenes[2:])]
    np.testing.assert_array_equal(actual, np.concatenate(parts))
    assert post(client, scenes.tobytes(), **RAW).content != actual.tobytes()


def test_a_chain_of_models(client: TestClient) -> None:
    answer = post(client, clip(3).tobytes(), model="toy+toy", **RAW)
    assert (answer.status_code, answer.headers["stvsr-frames"]) == (200, "6"), answer.text


def png_of(width: int, height: int) -> bytes:
    """Return a PNG file whose header states a size, and whose pixels are missing."""
    header = struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    parts = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


FRAME = clip(1).tobytes()


@pytest.mark.parametrize(
    ("content", "options", "status", "words"),
    [
        (b"", RAW, 400, "The body is empty"),
        (b"", {}, 400, "The body is empty"),
        (b"x" * 100, {}, 400, "no PNG image"),
        (encode_png(clip(1)[0])[:-20], {}, 400, "not complete"),
        (png_of(8, 8), {}, 400, "cannot be read"),
        (png_of(100_000, 100_000), {}, 422, "100000x100000 pixels, and this server takes 3072"),
        (FRAME[:-1], RAW, 422, "2303 bytes, and a frame of 32x24 pixels in rgb24 has 2304"),
        (FRAME, RAW | {"format": "rgb48le"}, 422, "2304 bytes"),
        (FRAME, {"format": "rgb24"}, 422, "give width and height"),
        (FRAME, RAW | {"format": "png"}, 422, "state their own size"),
        (FRAME, RAW | {"format": "yuv"}, 422, "format: input should be 'png', 'rgb24' or 'rgb48le'"),
        (bytes(65 * 48 * 3), RAW | {"width": 65, "height": 48}, 422, "65x48 pixels, and this server takes 3072"),
        (FRAME, RAW | {"scale": 9}, 422, "'toy' enlarges x1 to x8"),
        (FRAME, RAW | {"scale": "nan"}, 422, "scale"),
        (FRAME, RAW | {"size": "64x48", "scale": 2}, 422, "either a scale or a size"),
        (FRAME, RAW | {"times": "0,1"}, 422, "below 1"),
        (FRAME, RAW | {"times": "1/2,0"}, 422, "larger than the one before"),
        (FRAME, RAW | {"times": "1/0"}, 422, "divides by zero"),
        (FRAME, RAW | {"times": "0", "time_factor": 2}, 422, "either a time factor or times"),
        (FRAME, RAW | {"model": "none"}, 422, "There is no model 'none' here"),
        (FRAME, RAW | {"model": "../toy"}, 422, "model"),
        (FRAME, RAW | {"model": "/etc"}, 422, "model"),
        (FRAME, RAW | {"unknown": 1}, 422, "unknown: extra inputs are not permitted"),
        (FRAME, RAW | {"tile": 1}, 422, "no room for its halo"),
        (encode_png(clip(1)[0]) + encode_png(clip(1)[0, :20]), {}, 422, "32x20 pixels, and the first one 32x24"),
        (FRAME * 40, RAW | {"scale": 8, "time_factor": 1}, 422, "40 frames of 256x192 pixels, which are too many"),
        (FRAME[:12] * 257, {"format": "rgb24", "width": 2, "height": 2}, 413, "more than 256 frames"),
        (bytes(LIMIT + 1), RAW, 413, f"more than {LIMIT} bytes"),
    ],
)
def test_wrong_frames_are_refused(
    client: TestClient, content: bytes, options: dict[str, Any], status: int, words: str
) -> None:
    refused = post(client, content, **options)
    assert refused.status_code == status, refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    assert words in refused.json()["detail"]
    assert refused.json()["status"] == status
    assert post(client, FRAME, **RAW).status_code == 200, "the worker goes on"


def test_a_body_of_unknown_length_is_counted(client: TestClient) -> None:
    chunks = (bytes(1000) for _ in range(LIMIT // 1000 + 1))
    assert client.post("/v1/frames", content=chunks, params={"model": "toy", **RAW}).status_code == 413


def test_a_worker_that_dies_is_replaced_and_the_request_tried_again(client: TestClient) -> None:
    assert post(client, FRAME, **RAW).status_code == 200
    for pid in workers_of(os.getpid()):
        os.kill(pid, signal.SIGKILL)
    answer = post(client, FRAME, **RAW)
    assert answer.status_code == 200, answer.text


@pytest.mark.slow
def test_a_worker_that_dies_again_ends_the_request(client: TestClient) -> None:
    began, ended = threading.Event(), threading.Event()

    def kill() -> None:
        while not ended.is_set():
            for pid in workers_of(os.getpid()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                began.set()
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        assert began.wait(30)
        answer = post(client, FRAME, **RAW)
    finally:
        ended.set()
        killer.join()
    assert (answer.status_code, answer.json()["title"]) == (503, "worker-ended"), answer.text
    assert answer.headers["retry-after"] == "1"
    wait_until(lambda: post(client, FRAME, **RAW).status_code == 200)


def test_a_token_is_asked_for(models: Path, tmp_path: Path) -> None:
    token = "a-token-of-some-length"
    with TestClient(app_of(tmp_path, host="0.0.0.0", token=token)) as client:
        assert post(client, FRAME, **RAW).status_code == 401
        client.headers["Authorization"] = f"Bearer {token}"
        assert post(client, FRAME[:-1], **RAW).status_code == 422


def test_the_command_refuses_a_model_that_is_not_there(tmp_path: Path) -> None:
    assert_one_clear_error(stvsr("serve", "--store", tmp_path, "--warm", "none"), "There is no model 'none' here")


def test_the_page_of_the_interface_describes_frames(client: TestClient) -> None:
    paths = client.get("/v1/openapi.json").json()["paths"]
    names = {parameter["name"] for parameter in paths["/v1/frames"]["post"]["parameters"]}
    assert {"format", "width", "height", "scale", "times", "model"} <= names, json.dumps(paths["/v1/frames"])
