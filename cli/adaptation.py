"""The command that adapts a bundle to a clip, and the adaptation of `upscale --adapt`."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..engine.contract.errors import RequestError
from .options import DEFAULT_MODEL, AdaptOptions, InputFpsOption, PartOptions, SourceOptions
from .records import record_options
from .terminal import headline, interruptible, note, out, plain, progress_bar, training_extra

if TYPE_CHECKING:
    import numpy as np
    from rich.progress import Progress, TaskID

    from ..engine.pipeline.report import Adaptation
    from ..engine.pipeline.request import UpscaleRequest

_SAMPLED, _SCENES = 6, 4  # frames of other scenes than the longest, and scenes, that are analysed at most


@record_options
def adapt(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="A video, or a folder of images.")],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="Folder of the adapted bundle; per scene, of the bundles 1, 2 and on."),
    ],
    options: AdaptOptions,
    part: PartOptions,
    reading: SourceOptions,
    model: Annotated[
        str, typer.Option("-m", "--model", help="A bundle's name or folder, or Ada-VSR's TEMPORAL+SPATIAL.")
    ] = DEFAULT_MODEL,
    input_fps: InputFpsOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu, or cuda:N for a GPU by its number.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing bundle.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record of the adaptation as JSON.")] = False,
) -> None:
    """Adapt a bundle to one clip, and write it with its new weights."""
    from ..engine.contract.bundle import new_bundle
    from ..engine.pipeline.request import UpscaleRequest

    without_effect = {"--slowmo": part.slowmo, "--dedup": reading.dedup}
    if refused := [name for name, given in without_effect.items() if given]:
        raise RequestError(f"{' and '.join(refused)} changes nothing that is learned: leave it out.")
    request = UpscaleRequest(input=clip, model=model, input_fps=input_fps, **part.values(), **reading.values())
    with (
        interruptible("nothing was written"),
        new_bundle(output, overwrite) as folder,
        progress_bar(no_progress or as_json) as progress,
    ):
        task = progress.add_task(f"adapt {plain(clip.name)}", total=1.0, note="")
        announce = discard if as_json else note
        adaptation, folders = adapt_scenes(request, options, device, folder, progress, task, announce, is_written=True)
    if as_json:
        records = adaptation.records
        out.print_json(json.dumps(records[0] if folders == [folder] else records))
        return
    headline(output)
    for number, record in enumerate(adaptation.records, 1):
        scene = "" if folders == [folder] else f"Scene {number}: "
        out.print(f"  {scene}{plain(record['reason'])} {record['seconds']:.1f} s.", soft_wrap=True)
        if not record["kept"]:
            note(f"{scene or 'The adaptation was not kept: '}the bundle has its original weights.")


def discard(_: str) -> None:
    """Discard a sentence, where the record has it."""


def adapt_scenes(
    request: "UpscaleRequest",
    options: AdaptOptions,
    device: str,
    folder: Path,
    progress: "Progress",
    task: "TaskID",
    announce: Callable[[str], None],
    is_written: bool = False,
) -> tuple["Adaptation", list[Path]]:
    """Adapt a request's bundles to its video, or to each of its scenes.

    `announce` gets a sentence on what there is to learn, before anything is learned. The bundles are written to
    `folder`, per scene to its sub-folders 1, 2 and on; those that are not kept only if `is_written`, with their
    original weights. Returns them with their folders. Raises RequestError, BackendError.
    """
    from ..engine.contract.bundle import find_bundles
    from ..engine.media.stream_coding import measure_coding
    from ..engine.pipeline.report import Adaptation
    from ..engine.pipeline.run import read_scenes

    per = options.adapt_per or "video"
    if per not in ("scene", "video"):
        raise RequestError(f"Unknown value '{per}' of --adapt-per: use scene or video.")
    bundles = find_bundles(request.model)
    with training_extra():
        from ..export.adapter import BundleAdapter, write_unadapted

        adapter = BundleAdapter(bundles, _adapter_options(options, device))
    coding = measure_coding(request.input)
    scenes = read_scenes(request)
    clips = ((scene, [scene]) for scene in scenes) if per == "scene" else iter([longest_scene(scenes)])
    adapted, records, folders = [], [], []
    for number, (scene, sampled) in enumerate(clips, 1):
        description = f"adapt to scene {number}" if per == "scene" else "adapt"
        progress.update(task, description=description, completed=0, total=1.0)
        target = folder / str(number) if per == "scene" else folder
        decision = adapter.decide(sampled, coding)
        if decision is not None:
            announce(decision.sentence if per == "video" else f"Scene {number}: {decision.sentence}")
        used, verdict = adapter.adapt(scene, target, _show_steps(progress, task), decision)
        if is_written and not verdict.kept:
            write_unadapted(bundles, target, verdict)
        adapted.append(used)
        records.append(verdict.record())
        folders.append(target)
    return Adaptation(tuple(adapted), tuple(records)), folders


def longest_scene(scenes: "Iterator[np.ndarray]") -> tuple["np.ndarray", list["np.ndarray"]]:
    """Return the longest scene, and what is analysed of a clip: that scene, and some frames of the next longest."""
    import numpy as np

    longest = next(scenes)
    others: list[tuple[int, np.ndarray]] = []
    for scene in scenes:
        shorter, longest = (longest, scene) if len(scene) > len(longest) else (scene, longest)
        chosen = np.linspace(0, len(shorter) - 1, min(_SAMPLED, len(shorter))).round().astype(int)
        others.append((len(shorter), shorter[chosen]))
        others = sorted(others, key=lambda other: -other[0])[: _SCENES - 1]
    return longest, [longest, *(frames for _, frames in others)]


def _adapter_options(options: AdaptOptions, device: str) -> Any:  # export.adapter.Options, imported only with PyTorch
    from ..engine.contract.bundle import find_bundle
    from ..export.adapter import Options
    from ..training.adapt.protocol import Budget

    steps, seconds = options.adapt_steps, options.adapt_seconds
    return Options(
        budget=None if steps is None and seconds is None else Budget(steps, seconds),
        method=options.method,
        teacher=find_bundle(options.teacher) if options.teacher else None,
        degradation=options.degradation,
        checkpoint=options.checkpoint,
        coarse=options.coarse,
        seed=options.seed,
        device=device,
    )


def _show_steps(progress: "Progress", task: "TaskID") -> Callable[[Any, float], None]:
    return lambda clock, loss: progress.update(task, completed=clock.fraction(), note=f"step {clock.steps}")
