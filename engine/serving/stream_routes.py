"""Frames over HTTP: a few of them in one request, or a live stream through a WebSocket."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import aclosing
from itertools import islice
from typing import Any

from fastapi import APIRouter, Depends, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.concurrency import run_in_threadpool

from ..contract.errors import MediaError, RequestError
from .frame_options import FrameOptions
from .problems import Problem
from .requests import check_model, validated
from .server import Server
from .streams import StreamFacts

MOST_FRAMES = 256  # in a request
_ATTEMPTS = 2  # at a request whose worker ends
_SMALL_BYTES = 1 << 20  # of a body that is taken apart at once, and not in a thread, which takes longer
_CLOSED = 4000  # the close code of a stream that fails, without its status

_DESCRIPTION = {
    "parameters": [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in FrameOptions.model_json_schema()["properties"].items()
    ],
    "requestBody": {"content": {kind: {} for kind in ("image/png", "application/octet-stream")}},
    "responses": {"200": {"content": {kind: {} for kind in ("image/png", "application/octet-stream")}}},
}


def stream_routes(server: Server) -> APIRouter:
    """Return the routes of frames."""
    routes = APIRouter(prefix="/v1")

    @routes.post("/frames", dependencies=[Depends(server.authorize)], openapi_extra=_DESCRIPTION)
    async def upscale_frames(request: Request) -> Response:
        """Upscale the frames in the body, which follow each other; the options are in the query."""
        options = _read_options(server, request.query_params)
        body = await _read_body(request, server.settings.most_frames_bytes)
        try:
            if len(body) <= _SMALL_BYTES:
                frames = _split(options, body)
            else:
                frames = await run_in_threadpool(_split, options, body)
        except MediaError as error:
            raise Problem(400, "unreadable", str(error)) from error
        except RequestError as error:
            raise Problem(422, "bad-request", str(error)) from error
        if not frames:
            raise Problem(400, "no-frames", "The body is empty: send frames as the body of the request.")
        if len(frames) > MOST_FRAMES:
            raise Problem(413, "too-large", f"There are more than {MOST_FRAMES} frames: send fewer, or open a stream.")
        return await _unless_gone(request, _upscale(server, options, frames))

    @routes.websocket("/stream")
    async def stream_frames(websocket: WebSocket) -> None:
        """Upscale the frames that come as binary messages, and send the new ones, until the text {"type": "end"}."""
        try:
            server.check_token(websocket.headers.get("authorization"))
            options = _read_options(server, websocket.query_params)
            server.streams.check_room()
        except Problem as problem:
            await websocket.send_denial_response(problem.response())
            return
        await websocket.accept()
        try:
            await _stream(server, websocket, options)
            await websocket.send_json({"type": "done"})
            await websocket.close()
        except WebSocketDisconnect:
            return
        except Problem as problem:
            await _close_with(websocket, problem)

    return routes


def _read_options(server: Server, query: Mapping[str, str]) -> FrameOptions:
    if server.draining:
        raise Problem(503, "not-ready", "The server is ending.", retry_after="30")
    try:
        options = validated(FrameOptions, dict(query))
        options.check()
        check_model(options.model)
    except RequestError as error:
        raise Problem(422, "bad-request", str(error)) from error
    return options


async def _read_body(request: Request, most: int) -> bytes:
    too_large = Problem(413, "too-large", f"The frames have more than {most} bytes: send fewer, or open a stream.")
    if int(request.headers.get("content-length") or 0) > most:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise too_large
    return bytes(body)


def _split(options: FrameOptions, body: bytes) -> list[bytes]:
    """Return the frames in a body, up to one more than there may be. Raises RequestError, MediaError."""
    return list(islice(options.frame_format.split(body), MOST_FRAMES + 1))


async def _upscale(server: Server, options: FrameOptions, frames: list[bytes]) -> Response:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return await _upscale_once(server, options, frames)
        except Problem as problem:
            if problem.code != "worker-ended" or attempt == _ATTEMPTS:
                raise
    raise AssertionError


async def _upscale_once(server: Server, options: FrameOptions, frames: list[bytes]) -> Response:
    facts: StreamFacts | None = None
    new: list[bytes] = []
    seconds = 0.0
    async with aclosing(server.streams.run(options, _each(frames), takes_all=True)) as results:
        async for result in results:
            if isinstance(result, StreamFacts):
                facts = result
                _check_answer(server, options, facts, len(frames))
            else:
                new.append(result.data)
                seconds = result.seconds
    assert facts is not None
    headers = {
        "Stvsr-Frames": str(len(new)),
        "Stvsr-Width": str(facts.width),
        "Stvsr-Height": str(facts.height),
        "Server-Timing": f"session;dur={1e3 * seconds:.3f}",
    }
    image = options.format == "png" and len(new) == 1
    return Response(b"".join(new), headers=headers, media_type="image/png" if image else "application/octet-stream")


def _check_answer(server: Server, options: FrameOptions, facts: StreamFacts, frames: int) -> None:
    count = frames * len(facts.times)
    if count * facts.width * facts.height * options.frame_format.pixel_bytes > server.settings.most_frames_bytes:
        raise Problem(
            422,
            "too-large",
            f"The answer would be {count} frames of {facts.width}x{facts.height} pixels, which are too many for one"
            " request: send fewer frames, or open a stream.",
        )


async def _each(frames: Iterable[bytes]) -> AsyncIterator[bytes]:
    for frame in frames:
        yield frame


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Return the result of some work, which is cancelled when the client closes its connection."""

    async def wait_for_end() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, waiting = asyncio.create_task(work), asyncio.create_task(wait_for_end())
    try:
        await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Problem(499, "gone", "The client has closed the connection.")
        return working.result()
    finally:
        working.cancel()
        waiting.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)


async def _stream(server: Server, websocket: WebSocket, options: FrameOptions) -> None:
    """Pass frames between a client and a stream until it ends. Raises Problem, WebSocketDisconnect."""
    idle_s = server.settings.most_idle_s
    async with aclosing(server.streams.run(options, _received(websocket))) as results:
        async for result in results:
            if isinstance(result, StreamFacts):
                await websocket.send_json({"type": "opened", **result._asdict()})
                continue
            try:
                async with asyncio.timeout(idle_s):
                    await websocket.send_bytes(result.data)
            except TimeoutError:
                raise WebSocketDisconnect from None  # a client that does not read does not read an error either


async def _received(websocket: WebSocket) -> AsyncIterator[bytes]:
    """Yield the frames of a client until it ends the stream."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006))
        if (data := message.get("bytes")) is not None:
            yield data
        elif _is_end(message["text"]):
            return
        else:
            raise Problem(422, "bad-request", 'A message is a frame, or the text {"type": "end"}.')


def _is_end(text: str) -> bool:
    try:
        return bool(json.loads(text)["type"] == "end")
    except (ValueError, TypeError, KeyError):
        return False


async def _close_with(websocket: WebSocket, problem: Problem) -> None:
    """Send a problem as the last message of a stream, and close it."""
    try:
        await websocket.send_json({"type": "problem", "problem": problem.body})
        await websocket.close(_CLOSED + problem.status, problem.code)
    except WebSocketDisconnect:
        return
