"""The command that upscales many videos."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from .cli_options import BackendOptions, EncoderOptions, FrameOptions, record_options
from .engine.contract.errors import RequestError
from .terminal import complain, interruptible, note, out, plain, progress_bar

if TYPE_CHECKING:
    from .engine.backends.options import Backend
    from .engine.pipeline.batch import Outcome
    from .engine.pipeline.report import Progress

_VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv")


@record_options
def batch(
    sources: Annotated[
        list[Path], typer.Argument(metavar="CLIPS...", help="Videos, folders of videos, or folders of PNG images.")
    ],
    folder: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder of the outputs.")],
    frames: FrameOptions,
    encoder: EncoderOptions,
    backend: BackendOptions,
    workers: Annotated[
        int | None,
        typer.Option(help="Videos at once.", min=1, show_default="one for each GPU, else one"),
    ] = None,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcomes as JSON.")] = False,
) -> None:
    """Upscale many videos; stopped, the same command goes on. The exit code is 1 if one of them fails."""
    from .engine.pipeline.batch import upscale_batch
    from .engine.pipeline.request import UpscaleRequest
    from .engine.pipeline.resume import is_finished

    clips = _clips(sources)
    folder.mkdir(parents=True, exist_ok=True)
    record = backend.record()
    options = {"backend": record, **encoder.values(), **frames.values()}
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

        def advance(number: int, done: "Progress") -> None:
            progress.update(tasks[number], completed=done.frames_in, total=done.total_in, visible=True)

        def finish(number: int, outcome: "Outcome") -> None:
            progress.update(tasks[number], visible=False)

        outcomes = upscale_batch(requests, backends_of_workers(record, workers), advance, finish)
    _print_outcomes(len(every) - len(requests), outcomes, as_json)
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(1)


def _clips(sources: list[Path]) -> list[Path]:
    """Return the clips that the arguments name. Raises RequestError for a folder without any."""
    clips = []
    for source in sources:
        if not source.is_dir():
            clips.append(source)
            continue
        files = sorted(path for path in source.iterdir() if not path.name.startswith("."))
        videos = [path for path in files if path.suffix.lower() in _VIDEOS]
        if any(path.suffix.lower() == ".png" for path in files):
            clips.append(source)
        elif videos:
            clips += videos
        else:
            raise RequestError(f"{source} contains no videos and no PNG images: name another folder.")
    return clips


def _outputs(clips: list[Path], folder: Path) -> list[Path]:
    """Return the output of each clip, in order: named as the clip, with a number if an earlier one has the name."""
    from .engine.media.encoder import CONTAINERS

    taken: set[str] = set()
    outputs = []
    for clip in clips:
        stem = clip.name if clip.is_dir() else clip.stem
        suffix = clip.suffix.lower() if clip.suffix.lower() in CONTAINERS else ".mp4"
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
            complain(f"{outcome.request.input}: {outcome.error}")
        for warning in outcome.report.warnings if outcome.report else ():
            note(f"{outcome.request.input}: {warning}")
