"""The command that upscales many videos."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from .cli_options import BackendOptions, EncoderOptions, FrameOptions, SourceOptions, WorkerOptions, record_options
from .engine.contract.errors import MediaError, RequestError
from .terminal import complain, interruptible, note, out, plain, progress_bar

if TYPE_CHECKING:
    from .engine.backends.options import Backend
    from .engine.pipeline.batch import Outcome
    from .engine.pipeline.executor import Executor

_VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv")


@record_options
def batch(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="CLIPS...",
            help="Videos, folders of videos or of PNG images; s3://BUCKET/NAME for videos in a store of objects.",
        ),
    ],
    folder: Annotated[
        str, typer.Option("-o", "--output", metavar="DIR", help="Folder of the outputs, or s3://BUCKET/FOLDER.")
    ],
    frames: FrameOptions,
    reading: SourceOptions,
    encoder: EncoderOptions,
    backend: BackendOptions,
    worker: WorkerOptions,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder of unfinished parts, or s3://BUCKET/FOLDER.",
            show_default="beside each output",
        ),
    ] = None,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcomes as JSON.")] = False,
) -> None:
    """Upscale many videos; stopped, the same command goes on. The exit code is 1 if one of them fails."""
    from .engine.media.folders import is_remote
    from .engine.pipeline.batch import upscale_batch
    from .engine.pipeline.request import UpscaleRequest
    from .engine.pipeline.run_files import is_finished

    worker.check()
    clips = _clips(sources)
    for local in (path for path in (folder, store) if path is not None and not is_remote(path)):
        Path(local).mkdir(parents=True, exist_ok=True)
    record = backend.record()
    options = {"backend": record, **encoder.values(), **reading.values(), **frames.values()}
    every = [
        UpscaleRequest(input=clip, output=output, **options)
        for clip, output in zip(clips, _outputs(clips, folder), strict=True)
    ]
    requests = [request for request in every if not is_finished(request)]
    with (
        interruptible("finished videos and parts were kept: give the same command again"),
        progress_bar(no_progress or as_json) as progress,
    ):
        tasks = [progress.add_task(plain(Path(r.input).name), total=None, note="", visible=False) for r in requests]

        def advance(number: int, done: int, total: int | None) -> None:
            progress.update(tasks[number], completed=done, total=total, visible=True)

        def finish(number: int, outcome: "Outcome") -> None:
            progress.update(tasks[number], visible=False)

        outcomes: list[Outcome] = []
        if requests:
            outcomes = upscale_batch(requests, open_executor(worker, record), advance, finish, store)
    _print_outcomes(len(every) - len(requests), outcomes, as_json)
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(1)


def _clips(sources: list[str]) -> list[str]:
    """Return the clips that the arguments name. Raises RequestError for a folder without any."""
    from .engine.media.folders import is_remote, open_folder

    clips = []
    for source in sources:
        if _is_video(source) or not (is_remote(source) or Path(source).is_dir()):
            clips.append(source)
            continue
        try:
            names = [name for name in open_folder(source, Path()).names() if not name.startswith(".")]
        except OSError as error:
            raise MediaError(f"{source} cannot be listed ({error.strerror}): check the address and access.") from error
        videos = [f"{source.rstrip('/')}/{name}" for name in names if _is_video(name)]
        if any(name.lower().endswith(".png") for name in names) and not is_remote(source):
            clips.append(source)
        elif videos:
            clips += videos
        else:
            raise RequestError(f"{source} contains no videos and no PNG images: name another folder.")
    return clips


def _is_video(name: str) -> bool:
    return name.lower().endswith(_VIDEOS) and not Path(name).is_dir()


def _outputs(clips: list[str], folder: str) -> list[str]:
    """Return the output of each clip, in order: named as the clip, with a number if an earlier one has the name.

    Raises RequestError for a clip that would be its own output.
    """
    from .engine.media.encoder import CONTAINERS
    from .engine.media.folders import is_remote

    taken: set[str] = set()
    outputs = []
    for clip in clips:
        path = Path(clip)  # of an address, too: its name is behind the last slash
        stem = path.name if path.is_dir() else path.stem
        suffix = path.suffix.lower() if path.suffix.lower() in CONTAINERS else ".mp4"
        name, number = f"{stem}{suffix}", 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}-{number}{suffix}"
        taken.add(name.lower())
        output = f"{folder.rstrip('/')}/{name}" if is_remote(folder) else str(Path(folder) / name)
        if output == clip or (path.exists() and Path(output).exists() and path.samefile(output)):
            raise RequestError(f"{clip} would be replaced by its own output: choose another folder by -o.")
        outputs.append(output)
    return outputs


def open_executor(worker: WorkerOptions, backend: "Backend") -> "Executor":
    """Return the workers that the options of a command describe, before they run."""
    from .engine.pipeline.executor import LocalExecutor

    if worker.executor == "local":
        return LocalExecutor(backends_of_workers(backend, worker.workers))
    from .engine.pipeline.ray_executor import RayExecutor

    return RayExecutor(backend, workers=worker.workers, address=worker.ray_address)


def backends_of_workers(backend: "Backend", workers: int | None) -> list["Backend"]:
    """Return the backend of each worker: on every GPU, unless a device was named."""
    from .engine.backends.cuda_driver import device_count
    from .engine.backends.options import parse_device
    from .engine.pipeline.batch import split_cpu

    kind, _ = parse_device(backend.device)
    gpus = device_count() if kind == "auto" and backend.kind != "remote" else 0
    if gpus > 1:
        count = workers or gpus
        return [replace(backend, device=f"cuda:{number % gpus}") for number in range(count)]
    return split_cpu(backend, workers or 1)


def _print_outcomes(finished: int, outcomes: list["Outcome"], as_json: bool) -> None:
    if as_json:
        facts = [
            {
                "input": str(outcome.request.input),
                "output": str(outcome.request.output),
                "error": outcome.error,
                "report": None if outcome.report is None else outcome.report.as_dict(),
            }
            for outcome in outcomes
        ]
        out.print_json(json.dumps({"finished_before": finished, "outcomes": facts}))
        return
    table = Table("input", "output", "frames", "s", "frames/s", box=None)
    for outcome in outcomes:
        if (report := outcome.report) is not None:
            figures = (str(report.frames_out), f"{report.seconds:.1f}", f"{report.fps:.1f}")
            table.add_row(plain(outcome.request.input), plain(outcome.request.output), *figures)
    if table.row_count:
        out.print(table)
    if finished:
        out.print(f"{finished} finished before.")
    for outcome in outcomes:
        if outcome.error is not None:
            complain(f"{outcome.request.input}: {outcome.error}")
        for warning in outcome.report.warnings if outcome.report else ():
            note(f"{outcome.request.input}: {warning}")
