"""A queue of videos, and the command that upscales several of them at once."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..engine.contract.errors import MediaError, RequestError
from .options import (
    BackendOptions,
    EncoderOptions,
    FrameOptions,
    PartOptions,
    SourceOptions,
    WorkerOptions,
    request_fields,
)
from .progress import ProgressOptions, RunEvents
from .records import record_options
from .terminal import answers, complain, interruptible, new_table, note, out, plain, progress_bar

if TYPE_CHECKING:
    from ..engine.backends.options import Backend
    from ..engine.pipeline.adaptation import OpenLearner
    from ..engine.pipeline.batch import Outcome
    from ..engine.pipeline.executor import Executor

_VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv")


@record_options
def batch(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="CLIPS...",
            help="Videos, images, folders of videos, folders or patterns of images; s3://BUCKET/NAME for videos in a"
            " store of objects.",
        ),
    ],
    folder: Annotated[
        str, typer.Option("-o", "--output", metavar="DIR", help="Folder of the outputs, or s3://BUCKET/FOLDER.")
    ],
    frames: FrameOptions,
    part: PartOptions,
    reading: SourceOptions,
    encoder: EncoderOptions,
    backend: BackendOptions,
    worker: WorkerOptions,
    shown: ProgressOptions,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder of unfinished parts, or s3://BUCKET/FOLDER.",
            show_default="beside each output",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcomes as JSON.")] = False,
) -> None:
    """Upscale many videos; stopped, the same command goes on. The exit code is 1 if one of them fails."""
    shown.begin()
    options = request_fields(backend, encoder, reading, frames, part)
    run_queue(sources, folder, options, worker, store, shown.hides_bar or as_json, as_json)


def is_queue(sources: list[str], output: str | None) -> bool:
    """Return whether inputs are several: more than one, or a folder of videos.

    A folder of images and videos means its images where the output is a file.
    """
    from ..engine.media.image_files import folder_images

    folder = Path(sources[0])
    if len(sources) > 1 or not folder.is_dir():
        return len(sources) > 1
    means_images = output is not None and _names_file(output) and bool(folder_images(folder))
    return bool(_videos_in(sources[0])) and not means_images


def run_queue(
    sources: list[str],
    folder: str,
    options: dict[str, Any],
    worker: WorkerOptions,
    store: str | None,
    hides_bar: bool,
    as_json: bool,
) -> None:
    """Upscale inputs with the same options of an `UpscaleRequest` into a folder, and print their outcomes.

    Outputs that exist are not made again. The exit code is 1 if an input fails. Raises RequestError for arguments of
    which no queue can be made.
    """
    from ..engine.media.folders import is_remote
    from ..engine.media.image_files import is_images
    from ..engine.pipeline.batch import upscale_batch
    from ..engine.pipeline.request import UpscaleRequest
    from ..engine.pipeline.run_files import is_finished

    worker.check()
    clips = _clips(sources)
    if _names_file(folder):
        raise RequestError(f"Several inputs need a folder for their outputs, and {folder} is a file: name a folder.")
    for local in (path for path in (folder, store) if path is not None and not is_remote(path)):
        Path(local).mkdir(parents=True, exist_ok=True)
    of_videos = {name: value for name, value in options.items() if name != "input_fps"}
    every = [
        UpscaleRequest(input=clip, output=output, **(options if is_images(clip) else of_videos))
        for clip, output in zip(clips, _outputs(clips, folder), strict=True)
    ]
    requests = [request for request in every if not is_finished(request)]
    with (
        interruptible("finished videos and parts were kept: give the same command again"),
        progress_bar(hides_bar) as progress,
    ):
        tasks = [progress.add_task(plain(Path(r.input).name), total=None, note="", visible=False) for r in requests]
        events = [RunEvents(request) for request in requests]

        def advance(number: int, done: int, total: int | None) -> None:
            progress.update(tasks[number], completed=done, total=total, visible=True)
            events[number].advance(done, total)

        def finish(number: int, outcome: "Outcome") -> None:
            progress.update(tasks[number], visible=False)
            events[number].end(outcome)

        outcomes: list[Outcome] = []
        if requests:
            outcomes = upscale_batch(requests, open_executor(worker, options["backend"]), advance, finish, store)
    _print_outcomes(len(every) - len(requests), outcomes, as_json)
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(1)


def _names_file(output: str) -> bool:
    """Return whether an output is a file: one that exists, or has the suffix of one."""
    from ..engine.media.destination import ANIMATIONS, CONTAINERS, IMAGES

    path = Path(output)
    return not path.is_dir() and (path.exists() or path.suffix.lower() in (*CONTAINERS, *ANIMATIONS, *IMAGES))


def _clips(sources: list[str]) -> list[str]:
    """Return the clips that the arguments name. Raises RequestError for a folder without any, and for a pipe."""
    from ..engine.media.folders import is_remote
    from ..engine.media.image_files import folder_images
    from ..engine.media.pipes import input_name, is_pipe

    clips = []
    for source in sources:
        if is_pipe(source):
            raise RequestError(f"{input_name(source)} is a pipe, which is upscaled alone: name no other input.")
        if _is_video(source) or not (is_remote(source) or Path(source).is_dir()):
            clips.append(source)
        elif videos := _videos_in(source):
            clips += videos
        elif not is_remote(source) and folder_images(Path(source)):
            clips.append(source)
        else:
            raise RequestError(f"{source} contains no videos and no images: name another folder.")
    return clips


def _videos_in(folder: str) -> list[str]:
    """Return the videos in a folder, without those whose names begin with a dot."""
    from ..engine.media.folders import open_folder

    try:
        names = open_folder(folder, Path()).names()
    except OSError as error:
        raise MediaError(f"{folder} cannot be listed ({error.strerror}): check the address and access.") from error
    return [path for name in names if name[0] != "." and _is_video(path := f"{folder.rstrip('/')}/{name}")]


def _is_video(path: str) -> bool:
    return path.lower().endswith(_VIDEOS) and not Path(path).is_dir()


def _outputs(clips: list[str], folder: str) -> list[str]:
    """Return the output of each clip, in order: named as the clip, with a number if an earlier one has the name.

    Raises RequestError for a clip that would be its own output.
    """
    from ..engine.media.destination import CONTAINERS, IMAGES
    from ..engine.media.folders import is_remote
    from ..engine.media.image_files import is_images, stem_of

    taken: set[str] = set()
    outputs = []
    for clip in clips:
        path = Path(clip)  # of an address, too: its name is behind the last slash
        stem = stem_of(clip) if is_images(clip) else path.stem
        is_image = path.is_file() and is_images(clip)
        kept = path.suffix.lower() in (IMAGES if is_image else CONTAINERS)
        suffix = path.suffix.lower() if kept else ".png" if is_image else ".mp4"
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


def open_executor(
    worker: WorkerOptions,
    backend: "Backend",
    open_learner: "OpenLearner | None" = None,
    most_bytes: int | None = None,
) -> "Executor":
    """Return the workers that the options of a command describe, before they run.

    `open_learner` lets them adapt, and `most_bytes` limits the memory of those on this machine.
    """
    from ..engine.pipeline.executor import LocalExecutor

    if worker.executor == "local":
        return LocalExecutor(backends_of_workers(backend, worker.workers), open_learner, most_bytes)
    from ..engine.pipeline.ray_executor import RayExecutor

    return RayExecutor(backend, workers=worker.workers, address=worker.ray_address, open_learner=open_learner)


def backends_of_workers(backend: "Backend", workers: int | None) -> list["Backend"]:
    """Return the backend of each worker: on each device that was named, else on every GPU."""
    from ..engine.backends.cuda_driver import device_count
    from ..engine.backends.options import parse_device
    from ..engine.pipeline.batch import split_cpu

    backends = backend.by_device()
    if len(backends) == 1 and backend.kind != "remote" and parse_device(backend.device)[0] == "auto":
        gpus = device_count()
        backends = tuple(replace(backend, device=f"cuda:{number}") for number in range(gpus)) if gpus > 1 else backends
    if len(backends) > 1:
        return [backends[number % len(backends)] for number in range(workers or len(backends))]
    return split_cpu(backend, workers or 1)


def _print_outcomes(finished: int, outcomes: list["Outcome"], as_json: bool) -> None:
    if as_json:
        facts = [
            {
                "input": str(outcome.request.input),
                "output": str(outcome.request.output),
                "error": outcome.error,
                "code": outcome.code,
                "report": None if outcome.report is None else outcome.report.as_dict(),
            }
            for outcome in outcomes
        ]
        out.print_json(json.dumps({"finished_before": finished, "outcomes": facts}))
        return
    table = new_table("input", "output", "frames", "s", "frames/s")
    for outcome in outcomes:
        if (report := outcome.report) is not None:
            figures = (str(report.frames_out), f"{report.seconds:.1f}", f"{report.fps:.1f}")
            table.add_row(plain(outcome.request.input), plain(outcome.request.output), *figures)
    if table.row_count:
        out.print(table)
    if finished:
        out.print(f"{finished} finished before.")
    for outcome in () if answers.only_events else outcomes:
        if outcome.error is not None:
            name = str(outcome.request.input)
            complain(outcome.error if name in outcome.error else f"{name}: {outcome.error}")
        for warning in outcome.report.warnings if outcome.report else ():
            note(f"{outcome.request.input}: {warning}", event=False)
