"""The command that adapts a bundle to a clip, and the adaptation of `upscale --adapt`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..engine.contract.errors import RequestError
from .options import DEFAULT_MODEL, AdaptOptions, record_options
from .terminal import headline, interruptible, note, out, plain, progress_bar, training_extra

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ..engine.pipeline.report import Adaptation
    from ..engine.pipeline.request import UpscaleRequest

_SECONDS = 10.0  # of adaptation, without a limit of steps or seconds


@record_options
def adapt(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="A video, or a folder of images.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the adapted bundle.")],
    options: AdaptOptions,
    model: Annotated[
        str, typer.Option("-m", "--model", help="A bundle's name or folder, or Ada-VSR's TEMPORAL+SPATIAL.")
    ] = DEFAULT_MODEL,
    input_fps: Annotated[
        str | None,
        typer.Option(help="Frames per second, for a folder of images.", show_default="none; a folder needs it"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, or cuda:N for a GPU by its number.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing bundle.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record of the adaptation as JSON.")] = False,
) -> None:
    """Adapt a bundle to one clip, and write it with its new weights."""
    from ..engine.contract.bundle import find_bundles, new_bundle
    from ..engine.pipeline.request import UpscaleRequest
    from ..engine.pipeline.run import read_scenes

    request = UpscaleRequest(input=clip, model=model, input_fps=input_fps)
    bundles = find_bundles(model)
    with (
        training_extra(),
        interruptible("nothing was written"),
        new_bundle(output, overwrite) as folder,
        progress_bar(no_progress or as_json) as progress,
    ):
        from ..export.adapter import BundleAdapter, write_unadapted

        adapter = BundleAdapter(bundles, _adapter_options(options, device))
        scene = max(read_scenes(request), key=len)
        task = progress.add_task(f"adapt {plain(clip.name)}", total=1.0, note="")
        _, verdict = adapter.adapt(scene, folder, _show_steps(progress, task))
        if not verdict.kept:
            write_unadapted(bundles, folder, verdict)
    if as_json:
        out.print_json(json.dumps(verdict.record()))
        return
    headline(output)
    out.print(f"  {plain(verdict.reason)} {verdict.seconds:.1f} s, {adapter.method}.", soft_wrap=True)
    if not verdict.kept:
        note("The adaptation was not kept: the bundle has its original weights.")


def adapt_scenes(
    request: "UpscaleRequest", per: str, options: AdaptOptions, folder: Path, progress: "Progress", task: "TaskID"
) -> "Adaptation":
    """Adapt a request's bundles to its video, or to each of its scenes, in sub-folders of `folder`.

    `per` is "video" or "scene". Raises RequestError, BackendError.
    """
    from ..engine.contract.bundle import find_bundles
    from ..engine.pipeline.report import Adaptation
    from ..engine.pipeline.run import read_scenes

    if per not in ("scene", "video"):
        raise RequestError(f"Unknown value '{per}' of --adapt-per: use scene or video.")
    with training_extra():
        from ..export.adapter import BundleAdapter

        device = "cpu" if request.backend.by_device()[0].device == "cpu" else "auto"
        adapter = BundleAdapter(find_bundles(request.model), _adapter_options(options, device))
    scenes = iter([max(read_scenes(request), key=len)]) if per == "video" else read_scenes(request)
    adapted, records = [], []
    for number, scene in enumerate(scenes, 1):
        description = f"adapt to scene {number}" if per == "scene" else "adapt"
        progress.update(task, description=description, completed=0, total=1.0)
        bundles, verdict = adapter.adapt(scene, folder / str(number), _show_steps(progress, task))
        adapted.append(bundles)
        records.append(verdict.record())
    return Adaptation(tuple(adapted), tuple(records))


def _adapter_options(options: AdaptOptions, device: str) -> Any:  # export.adapter.Options, imported only with PyTorch
    from ..engine.contract.bundle import find_bundle
    from ..export.adapter import Options
    from ..training.adapt.protocol import Budget

    steps, seconds = options.adapt_steps, options.adapt_seconds
    if steps is None and seconds is None:
        seconds = _SECONDS
    return Options(
        budget=Budget(steps, seconds),
        method=options.method,
        teacher=find_bundle(options.teacher) if options.teacher else None,
        estimate_blur=options.estimate_blur,
        checkpoint=options.checkpoint,
        coarse=options.coarse,
        seed=options.seed,
        device=device,
    )


def _show_steps(progress: "Progress", task: "TaskID") -> Callable[[Any, float], None]:
    return lambda clock, loss: progress.update(task, completed=clock.fraction(), note=f"step {clock.steps}")
