"""The command that adapts a bundle to a clip, and what ``upscale --adapt`` does before it upscales."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_training import training_extra, user_errors
from .engine.contract.errors import RequestError
from .terminal import err, out, plain, progress_bar, read_rate

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from .engine.pipeline.request import UpscaleRequest
    from .engine.pipeline.run import Adaptation

_SECONDS = 10.0  # of adaptation, unless told


def adapt(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="A video, or a folder of PNGs.")],
    model: Annotated[
        str, typer.Option("-m", "--model", help="A bundle's name or folder, or Ada-VSR's TEMPORAL+SPATIAL.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The adapted bundle's folder.")],
    method: Annotated[
        str | None,
        typer.Option(help="self-supervised, distillation, internal or zero-shot.  [default: by the network]"),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps to learn.", min=1)] = None,
    adapt_seconds: Annotated[float | None, typer.Option(help=f"Seconds to learn.  [default: {_SECONDS:g}]")] = None,
    teacher: Annotated[str | None, typer.Option(help="Of distillation: the larger network's bundle.")] = None,
    estimate_blur: Annotated[
        bool, typer.Option("--estimate-blur", help="The clip is known to be blurred: find out how.")
    ] = False,
    checkpoint: Annotated[Path | None, typer.Option(help="Of zero-shot learning: where a stopped run goes on.")] = None,
    coarse: Annotated[
        int | None,
        typer.Option(help="Of zero-shot learning: how many times smaller it sees frames.  [default: by their motion]"),
    ] = None,
    input_fps: Annotated[str | None, typer.Option(help="Frame rate of a folder of PNGs.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Adapt a bundle to one clip, and write it with its new weights."""
    from .engine.contract.bundle import find_bundles, new_bundle
    from .engine.pipeline.request import UpscaleRequest
    from .engine.pipeline.run import read_scenes

    request = UpscaleRequest(input=clip, model=model, input_fps=read_rate(input_fps) if input_fps else None)
    bundles = find_bundles(model)
    with training_extra(), new_bundle(output, overwrite) as folder, progress_bar(no_progress or as_json) as progress:
        from .export.adapter import BundleAdapter, write_unadapted

        options = _adaptation(method, steps, adapt_seconds, teacher, estimate_blur, checkpoint, coarse, seed)
        adapter = BundleAdapter(bundles, options)
        scene = max(read_scenes(request), key=len)
        task = progress.add_task(f"adapt {plain(clip.name)}", total=1.0, note="")
        _, verdict = adapter.adapt(scene, folder, _told_on(progress, task))
        if not verdict.kept:
            write_unadapted(bundles, folder, verdict)
    if as_json:
        out.print_json(json.dumps(verdict.record()))
        return
    out.print(f"[bold]{plain(output)}[/]", soft_wrap=True)
    out.print(f"  {plain(verdict.reason)} {verdict.seconds:.1f} s, {adapter.method}.", soft_wrap=True)
    if not verdict.kept:
        err.print("[yellow]Note:[/] The adaptation was not kept: the bundle has its original weights.", soft_wrap=True)


def adapted(
    request: "UpscaleRequest",
    per: str,
    method: str | None,
    steps: int | None,
    seconds: float | None,
    teacher: str | None,
    folder: Path,
    progress: "Progress",
    task: "TaskID",
) -> "Adaptation":
    """Adapt a request's bundles to its video, or to each of its scenes, in folders of their own in `folder`."""
    from .engine.contract.bundle import find_bundles
    from .engine.pipeline.run import Adaptation, read_scenes

    if per not in ("scene", "video"):
        raise RequestError(f"'{per}' is nothing to adapt to: write --adapt-per scene or --adapt-per video.")
    with training_extra():
        from .export.adapter import BundleAdapter

        adapter = BundleAdapter(find_bundles(request.model), _adaptation(method, steps, seconds, teacher))
    scenes = iter([max(read_scenes(request), key=len)]) if per == "video" else read_scenes(request)
    made, records = [], []
    for number, scene in enumerate(scenes, 1):
        what = f"adapt to scene {number}" if per == "scene" else "adapt"
        progress.update(task, description=what, completed=0, total=1.0)
        bundles, verdict = adapter.adapt(scene, folder / str(number), _told_on(progress, task))
        made.append(bundles)
        records.append(verdict.record())
    return Adaptation(tuple(made), tuple(records))


def _adaptation(
    method: str | None,
    steps: int | None,
    seconds: float | None,
    teacher: str | None,
    estimate_blur: bool = False,
    checkpoint: Path | None = None,
    coarse: int | None = None,
    seed: int = 0,
) -> Any:  # Options of export/adaptation.py
    from .engine.contract.bundle import find_bundle
    from .export.adapter import Options
    from .training.adapt.protocol import Budget

    if coarse is not None and (coarse < 1 or coarse & (coarse - 1)):
        raise RequestError(f"Frames are made 1, 2, 4, ... times smaller, not {coarse}: choose another --coarse.")
    if seconds is None and steps is None:
        seconds = _SECONDS
    with user_errors(ValueError):
        budget = Budget(steps, seconds)
    found = find_bundle(teacher) if teacher else None
    return Options(budget, method, found, estimate_blur, checkpoint, coarse, seed)


def _told_on(progress: "Progress", task: "TaskID") -> Callable[[Any, float], None]:
    return lambda clock, loss: progress.update(task, completed=clock.fraction(), note=f"step {clock.steps}")
