"""A queue of videos, and the command that upscales several of them at once."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from .cli_options import BackendOptions, EncoderOptions, FrameOptions, PartOptions, record_options
from .engine.contract.errors import RequestError
from .terminal import err, interruptible, out, plain, progress_bar

if TYPE_CHECKING:
    from .engine.backends.options import Backend
    from .engine.pipeline.batch import Outcome
    from .engine.pipeline.report import Progress

_VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv")


@record_options
def batch(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="CLIPS...", help="Videos, images, folders of videos, or folders or patterns of images."),
    ],
    folder: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder of the outputs.")],
    frames: FrameOptions,
    part: PartOptions,
    encoder: EncoderOptions,
    backend: BackendOptions,
    workers: Annotated[
        int | None,
        typer.Option(help="Videos at once.", min=1, show_default="one for each GPU, else one"),
    ] = None,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcomes as JSON.")] = False,
) -> None:
    """Upscale many videos at once, as 'upscale' does with several inputs; stopped, the same command goes on."""
    options = {"backend": backend.record(), **encoder.values(), **frames.values(), **part.values()}
    run_queue(sources, folder, options, workers, no_progress, as_json)


def is_queue(sources: list[Path]) -> bool:
    """Return whether inputs are several: more than one, or a folder of videos."""
    return len(sources) > 1 or (sources[0].is_dir() and bool(_videos_in(sources[0])))


def run_queue(
    sources: list[Path],
    folder: Path,
    options: dict[str, Any],
    workers: int | None,
    no_progress: bool,
    as_json: bool,
) -> None:
    """Upscale inputs with the same options of an `UpscaleRequest` into a folder, and print their outcomes.

    Outputs that exist are not made again. The exit code is 1 if an input fails. Raises RequestError for arguments of
    which no queue can be made.
    """
    from .engine.media.image_files import is_images
    from .engine.pipeline.batch import upscale_batch
    from .engine.pipeline.request import UpscaleRequest
    from .engine.pipeline.resume import is_finished

    clips = _clips(sources)
    _make_folder(folder)
    of_videos = {name: value for name, value in options.items() if name != "input_fps"}
    every = [
        UpscaleRequest(input=clip, output=output, **(options if is_images(clip) else of_videos))
        for clip, output in zip(clips, _outputs(clips, folder), strict=True)
    ]
    requests = [request for request in every if not is_finished(request)]
    with (
        interruptible("finished videos and parts were kept: give the same command again"),
        progress_bar(no_progress or as_json) as progress,
    ):
        tasks = [progress.add_task(plain(Path(r.input).name), total=None, note="", visible=False) for r in requests]

        def advance(number: int, done: "Progress") -> None:
            progress.update(tasks[number], completed=done.frames_in, total=done.total_in, visible=True)

        def finish(number: int, outcome: "Outcome") -> None:
            progress.update(tasks[number], visible=False)

        outcomes = upscale_batch(requests, backends_of_workers(options["backend"], workers), advance, finish)
    _print_outcomes(len(every) - len(requests), outcomes, as_json)
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(1)


def _make_folder(folder: Path) -> None:
    from .engine.media.destination import ANIMATIONS, CONTAINERS, IMAGES

    if folder.suffix.lower() in (*CONTAINERS, *ANIMATIONS, *IMAGES) or (folder.exists() and not folder.is_dir()):
        raise RequestError(f"Several inputs need a folder for their outputs, and {folder} is a file: name a folder.")
    folder.mkdir(parents=True, exist_ok=True)


def _videos_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in _VIDEOS and not p.name.startswith("."))


def _clips(sources: list[Path]) -> list[Path]:
    """Return the clips that the arguments name. Raises RequestError for a folder without any, and for a pipe."""
    from .engine.media.image_files import folder_images
    from .engine.media.pipes import input_name, is_pipe

    clips = []
    for source in sources:
        if is_pipe(source):
            raise RequestError(f"{input_name(source)} is a pipe, which is upscaled alone: name no other input.")
        if not source.is_dir():
            clips.append(source)
        elif videos := _videos_in(source):
            clips += videos
        elif folder_images(source):
            clips.append(source)
        else:
            raise RequestError(f"{source} contains no videos and no images: name another folder.")
    return clips


def _outputs(clips: list[Path], folder: Path) -> list[Path]:
    """Return the output of each clip, in order: named as the clip, with a number if an earlier one has the name."""
    from .engine.media.destination import CONTAINERS, IMAGES
    from .engine.media.image_files import is_images, stem_of

    taken: set[str] = set()
    outputs = []
    for clip in clips:
        stem = stem_of(clip) if is_images(clip) else clip.stem
        is_image = clip.is_file() and is_images(clip)
        kept = clip.suffix.lower() in (IMAGES if is_image else CONTAINERS)
        suffix = clip.suffix.lower() if kept else ".png" if is_image else ".mp4"
        name, number = f"{stem}{suffix}", 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}-{number}{suffix}"
        taken.add(name.lower())
        outputs.append(folder / name)
    return outputs


def backends_of_workers(backend: "Backend", workers: int | None) -> list["Backend"]:
    """Return the backend of each worker: on every GPU, unless a device was named."""
    from .engine.backends.cuda_driver import device_count
    from .engine.backends.options import parse_device
    from .engine.pipeline.batch import split_cpu

    kind, _ = parse_device(backend.device)
    gpus = device_count() if kind == "auto" else 0
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
            err.print(f"[bold red]Error:[/] {plain(outcome.request.input)}: {plain(outcome.error)}", soft_wrap=True)
        for warning in outcome.report.warnings if outcome.report else ():
            err.print(f"[yellow]Note:[/] {plain(outcome.request.input)}: {plain(warning)}", soft_wrap=True)
