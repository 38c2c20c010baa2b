"""The command that serves videos over HTTP."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..engine.contract.errors import BackendError, RequestError
from .adaptation import check_learner, open_learner
from .batch import backends_of_workers, open_executor
from .options import BackendOptions, WorkerOptions
from .records import record_options, refuse_without
from .terminal import err, interruptible, plain

if TYPE_CHECKING:
    import uvicorn

    from ..engine.serving.websocket import DrainingServer

LogLevel = Literal["debug", "info", "warning", "error"]
_EXTRA = ("fastapi", "uvicorn", "prometheus_client", "anyio", "starlette")  # modules of stvsr[serve]


@record_options
def serve(
    backend: BackendOptions,
    worker: WorkerOptions,
    store: Annotated[Path, typer.Option(help="Folder of the jobs and their files.")] = Path("stvsr-jobs"),
    files: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="For workers on other machines: a folder that all machines share, or s3://BUCKET/FOLDER.",
            show_default="the store",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="A file with the token that clients send.", show_default="none")
    ] = None,
    max_upload: Annotated[str, typer.Option(help="Largest video: bytes, or a number with K, M or G.")] = "2G",
    max_pixels: Annotated[int, typer.Option(help="Largest input frame, in pixels.", min=1)] = 3840 * 2160,
    max_frames: Annotated[int, typer.Option(help="Longest video, in frames.", min=1)] = 200_000,
    max_queue: Annotated[int, typer.Option(help="Jobs that may wait.", min=1)] = 100,
    keep_hours: Annotated[float, typer.Option(help="Hours until a job that has ended is deleted.", min=0)] = 24.0,
    segment_timeout: Annotated[float, typer.Option(help="Seconds that a part of a video may take.", min=1)] = 600.0,
    worker_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory that each process may use that works for clients, on Linux: bytes, or a number with M or G.",
            show_default="no limit",
        ),
    ] = None,
    adapt_seconds: Annotated[
        float | None,
        typer.Option(
            help="Allow clients to adapt the network to each scene, and learn one for at most so many seconds"
            " (needs PyTorch).",
            show_default="not allowed",
        ),
    ] = None,
    allow_url: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PREFIX",
            help="Address below which clients may name videos for the server to fetch, such as"
            " https://example.com/videos/. Repeatable.",
            show_default="none",
        ),
    ] = None,
    webhook_prefix: Annotated[
        list[str] | None,
        typer.Option(
            help="Address below which clients may name webhooks, which learn when a job has ended.",
            show_default="none",
        ),
    ] = None,
    webhook_secret_file: Annotated[
        Path | None,
        typer.Option(help="A file with the secret that signs webhooks: whsec_ and base64.", show_default="none"),
    ] = None,
    log_level: Annotated[
        LogLevel, typer.Option(help="Events to log, as lines of JSON on standard error; debug has every request.")
    ] = "info",
    max_streams: Annotated[int, typer.Option(help="Streams and requests of frames at once.", min=0)] = 8,
    warm: Annotated[
        list[str] | None,
        typer.Option(help="A model that is opened at the start, for frames. Repeatable.", show_default="none"),
    ] = None,
    batch: Annotated[int, typer.Option(help="Windows of several streams that are computed at once.", min=1)] = 1,
) -> None:
    """Serve videos and frames over HTTP: jobs that go on after a restart, and live streams."""
    worker.check()
    if worker.executor != "local":
        refuse_without("--executor local", {"--worker-memory": worker_memory})
    try:
        import uvicorn

        from ..engine.media.folders import is_remote
        from ..engine.serving.app import make_app
        from ..engine.serving.credentials import drop_credentials
        from ..engine.serving.logs import log_to_stderr
        from ..engine.serving.requests import check_model
        from ..engine.serving.settings import Settings, read_secret, read_token
        from ..engine.serving.websocket import websocket_options
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _EXTRA:
            raise
        raise BackendError(
            f'This command needs {error.name}, which is not installed: pip install "stvsr[serve]".'
        ) from error
    if adapt_seconds is not None:
        check_learner()
    for model in warm or ():
        check_model(model)
    settings = Settings(
        folder=store,
        files=files,
        host=host,
        token=None if token_file is None else read_token(token_file),
        most_upload_bytes=_read_bytes(max_upload),
        most_pixels=max_pixels,
        most_frames=max_frames,
        most_queued=max_queue,
        keep_s=3600 * keep_hours,
        task_s=segment_timeout,
        most_worker_bytes=None if worker_memory is None else _read_bytes(worker_memory),
        adapt_s=adapt_seconds,
        url_prefixes=tuple(allow_url or ()),
        webhook_prefixes=tuple(webhook_prefix or ()),
        webhook_secret=None if webhook_secret_file is None else read_secret(webhook_secret_file),
        most_streams=max_streams,
        warm=tuple(warm or ()),
        batch=batch,
    )
    log_to_stderr(log_level)
    record = backend.record()
    drop_credentials(os.environ, keep_stores=is_remote(files) or worker.executor != "local")
    learner = None if adapt_seconds is None else open_learner
    executor = open_executor(worker, record, learner, settings.most_worker_bytes)
    app = make_app(settings, backends_of_workers(record, worker.workers), executor)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=30,
        **websocket_options(settings),
    )
    server = _announced_server(config, store)
    try:
        with interruptible("its jobs go on when it is started again"):
            server.run()
    except SystemExit:  # uvicorn has logged the reason
        if not server.lifespan.should_exit:
            raise BackendError(
                f"The server cannot use port {port} of {host}: choose another --port or --host."
            ) from None
    if not server.started:
        sys.exit(1)


def _announced_server(config: "uvicorn.Config", store: Path) -> "DrainingServer":
    """Return a server that prints its address when it listens there, with the port that was chosen for port 0."""
    from ..engine.serving.websocket import DrainingServer

    class AnnouncedServer(DrainingServer):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            host = f"[{config.host}]" if ":" in config.host else config.host
            port = self.servers[0].sockets[0].getsockname()[1]
            err.print(f"Serving on http://{plain(host)}:{port}, jobs in {plain(store)}.", soft_wrap=True)

    return AnnouncedServer(config)


def _read_bytes(text: str) -> int:
    units = {"K": 10, "M": 20, "G": 30}
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in units else (text, "")
    if not (number.isascii() and number.isdigit()) or not int(number):
        raise RequestError(f"'{text}' is not a size: write bytes, or a number with K, M or G, as in 500M.")
    return int(number) << units.get(unit, 0)
