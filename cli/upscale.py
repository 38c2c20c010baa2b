"""The command that upscales one video, or a queue of them."""

import json
from contextlib import ExitStack
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..engine.contract.errors import RequestError
from .adaptation import AdaptOptions, check_learner, discard, learn_beside, show_steps
from .batch import is_queue, run_queue
from .options import (
    BackendOptions,
    EncoderOptions,
    FrameOptions,
    PartOptions,
    SourceOptions,
    WorkerOptions,
    request_fields,
)
from .preview import write_preview
from .progress import ProgressOptions, RunEvents, show_frames
from .records import record_options, refuse_without
from .terminal import Terminal, answers, err, headline, interruptible, note, out, plain, progress_bar

if TYPE_CHECKING:
    from ..engine.pipeline.adaptation import AdaptSettings
    from ..engine.pipeline.report import Report
    from ..engine.pipeline.request import UpscaleRequest


@record_options
def upscale(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="A video, an image, a folder of images, a pattern such as name_%05d.png, or - for the standard input."
            " Several inputs, and folders of videos, are upscaled one after another.",
        ),
    ],
    frames: FrameOptions,
    part: PartOptions,
    reading: SourceOptions,
    encoder: EncoderOptions,
    backend: BackendOptions,
    adaptation: AdaptOptions,
    shown: ProgressOptions,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="The output: a video, a .gif, .apng or .avif, images (out/ or out_%05d.png), or - for the standard"
            " output. Of several inputs: a folder.",
            show_default="STEM_x4_60fps.mp4 beside INPUT",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="Of a pipe as output: matroska, mpegts, y4m or rawvideo.", show_default="matroska"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Keep finished parts in .NAME.stvsr, from which the same command goes on if it is stopped."
        ),
    ] = False,
    preview: Annotated[
        Path | None,
        typer.Option(
            metavar="PAGE",
            help="Upscale only the five seconds with the most motion, into a page with the input beside the output.",
            show_default="none",
        ),
    ] = None,
    adapt: Annotated[bool, typer.Option("--adapt", help="Adapt the network to the video first.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Enlarge videos and raise their frame rate."""
    from ..engine.media.pipes import is_pipe
    from ..engine.pipeline.request import UpscaleRequest

    if as_json and output is not None and is_pipe(output):
        answers.json_on = err  # stdout has the video
    shown.begin()
    options = request_fields(backend, encoder, reading, frames, part)
    if adapt and options["backend"].kind == "remote":
        raise RequestError("--adapt changes a network's weights, and a server keeps its own: use another --backend.")
    if not adapt:
        refuse_without("--adapt", adaptation.given())
    if preview is not None:
        others = {"-o": output is not None, "--format": format is not None, "--resume": resume, "--adapt": adapt}
        if taken := [name for name, given in others.items() if given]:
            raise RequestError(f"--preview writes a page instead of the output: leave out {' and '.join(taken)}.")
        if len(sources) > 1:
            raise RequestError("--preview is of one input: name one.")
        shown.divert_native_lines()
        write_preview(UpscaleRequest(input=sources[0], **options), preview, shown.hides_bar or as_json, as_json)
        return
    if is_queue(sources, output):
        if adapt or format is not None:
            raise RequestError(f"{'--adapt' if adapt else '--format'} is for one input: leave it out, or name one.")
        if output is None:
            raise RequestError("Several inputs need a folder for their outputs: name one by -o.")
        if is_pipe(output):
            raise RequestError("Several inputs need a folder for their outputs, and - is a pipe: name one by -o.")
        run_queue(sources, output, options, WorkerOptions(), None, shown.hides_bar or as_json, as_json)
        return
    (source,) = sources
    request = UpscaleRequest(input=source, output=output, format=format, **options)
    settings = adaptation.settings() if adapt else None
    if adapt:
        check_learner()
    shown.divert_native_lines()
    _upscale_one(request, resume, settings, shown.hides_bar or as_json, as_json)


def _upscale_one(
    request: "UpscaleRequest",
    resume: bool,
    adaptation: "AdaptSettings | None",
    hides_bar: bool,
    as_json: bool,
) -> None:
    """Upscale one input, show the progress and print the report."""
    from ..engine.media.pipes import is_pipe
    from ..engine.pipeline.adaptation import SceneAdaptation
    from ..engine.pipeline.resume import upscale_resumable
    from ..engine.pipeline.run import upscale as run

    name = plain(Path(request.input).name)
    to_pipe = request.output is not None and is_pipe(request.output)
    events = RunEvents(request)
    kept = "finished parts were kept: give the same command again" if resume else "nothing was written"
    with (
        interruptible("the output is not complete" if to_pipe else kept),
        progress_bar(hides_bar) as progress,
        ExitStack() as opened,
    ):
        task = progress.add_task(name, total=None, note="")
        show = show_frames(progress, task, name, events)

        def warn(warning: str) -> None:
            events.warn(warning)
            if not as_json:
                note(warning, event=False)

        adapting = None
        if adaptation is not None:
            announce = discard if as_json else partial(note, event=False)
            request, adapting = learn_beside(
                request, adaptation, show_steps(progress, task, adaptation, events), announce
            )
        events.start("survey" if resume else "adapt" if adaptation else "upscale")
        if resume:
            report = upscale_resumable(request, show, on_warning=warn, adapting=adapting)
        else:
            scenes = None if adapting is None else opened.enter_context(SceneAdaptation(request, adapting))
            report = run(request, show, scenes, on_warning=warn)
    for warning in report.warnings:
        if warning not in events.warned:
            warn(warning)
    events.finish(report)
    console = err if to_pipe else out
    if console is err and answers.only_events:
        return
    if as_json:
        console.print_json(json.dumps(report.as_dict()))
    else:
        _print_report(report, console)


_SHOWN_SECONDS = 1.0  # of opening and first runs: less is not worth a line


def _print_report(report: "Report", console: Terminal) -> None:
    """Print a report, without its warnings."""
    size = "{}x{} -> {}x{}".format(*report.size_in, *report.size_out)
    cuts = f", {len(report.cuts_s)} scene cut{'s' * (len(report.cuts_s) != 1)}" if report.cuts_s else ""
    how = "" if report.device == "cpu" else f" ({report.backend}, {report.precision})"
    headline(report.output, on=console)
    console.print(
        f"  {size}, {report.frames_in} -> {report.frames_out} frames{cuts}, {float(Fraction(report.rate_out)):g} fps; "
        f"{report.seconds:.1f} s, {report.fps:.1f} frames/s, {plain(report.bundle)} on {report.device}{how}",
        soft_wrap=True,
    )
    first_seconds = report.opening_seconds + report.first_run_seconds
    if report.device.startswith("cuda") and first_seconds >= _SHOWN_SECONDS:
        console.print(
            f"  Of these, {report.opening_seconds:.1f} s to open the network and {report.first_run_seconds:.1f} s for"
            " its first runs.",
            soft_wrap=True,
        )
    if report.repeated_frames or report.still_frames:
        still = f"; {report.still_frames} frames of still pictures stay still" if report.still_frames else ""
        console.print(f"  {report.repeated_frames} repeated frames were interpolated over{still}.", soft_wrap=True)
    for number, record in enumerate(report.adaptation, 1):
        scene = f"Scene {number}: " if len(report.adaptation) > 1 else ""
        console.print(f"  {scene}{plain(record['reason'])} {record['seconds']:.1f} s.", soft_wrap=True)
        if not record["kept"]:
            note(f"{scene}the original weights were used.")
