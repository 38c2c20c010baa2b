"""The command that adapts a bundle to a clip, and the adaptation of `upscale --adapt`."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from ..engine.contract.errors import BackendError, RequestError
from .options import DEFAULT_MODEL, InputFpsOption, PartOptions, SourceOptions
from .records import record_options
from .terminal import headline, interruptible, note, out, plain, progress_bar, training_extra

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ..engine.pipeline.adaptation import Adapting, AdaptSettings, Announce, Learner, OnStep
    from ..engine.pipeline.request import UpscaleRequest
    from .progress import RunEvents


@dataclass(frozen=True)
class AdaptOptions:
    """Method and limits of an adaptation, the same for `adapt` and `upscale --adapt`."""

    panel: ClassVar = "Adaptation"

    adapt_per: Annotated[
        str | None, typer.Option(help="Adapt to the video, or to each scene: video or scene.", show_default="video")
    ] = None
    method: Annotated[
        str | None,
        typer.Option(help="self-supervised, distillation, internal or zero-shot.", show_default="by the network"),
    ] = None
    adapt_steps: Annotated[
        int | None,
        typer.Option(
            help="Steps to learn; the first limit ends it.",
            min=1,
            show_default="10 without --adapt-seconds; zero-shot: none",
        ),
    ] = None
    adapt_seconds: Annotated[
        float | None, typer.Option(help="Seconds to learn.", show_default="20 without --adapt-steps")
    ] = None
    teacher: Annotated[
        str | None, typer.Option(help="For distillation: the larger network's bundle.", show_default="none")
    ] = None
    degradation: Annotated[
        str,
        typer.Option(
            help="What made the frames small: auto (by an analysis of the clip), plain (bicubic resizing), or blur,"
            " noise and compression with a + between, which are estimated."
        ),
    ] = "auto"
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="For zero-shot learning: a file from which a stopped run resumes.", show_default="none"),
    ] = None
    coarse: Annotated[
        int | None,
        typer.Option(
            help="For zero-shot learning: the network sees frames so many times smaller (1, 2, 4, ...).",
            show_default="by the motion",
        ),
    ] = None
    seed: Annotated[int, typer.Option(help="Seed of the random examples.", min=0)] = 0

    def given(self) -> dict[str, Any]:
        """Return the options by their names on the command line, with the values that were given."""
        return {
            "--adapt-per": self.adapt_per,
            "--method": self.method,
            "--adapt-steps": self.adapt_steps,
            "--adapt-seconds": self.adapt_seconds,
            "--teacher": self.teacher,
            "--degradation": None if self.degradation == "auto" else self.degradation,
            "--checkpoint": self.checkpoint,
            "--coarse": self.coarse,
            "--seed": self.seed or None,
        }

    def settings(self) -> "AdaptSettings":
        """Return the engine's record. Raises RequestError."""
        from ..engine.pipeline.adaptation import AdaptSettings

        return AdaptSettings(
            per=self.adapt_per or "video",  # type: ignore[arg-type]  # validated by AdaptSettings
            method=self.method,
            steps=self.adapt_steps,
            seconds=self.adapt_seconds,
            teacher=self.teacher,
            degradation=self.degradation,
            checkpoint=self.checkpoint,
            coarse=self.coarse,
            seed=self.seed,
        )


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
    from ..engine.backends.options import Backend
    from ..engine.contract.bundle import new_bundle
    from ..engine.media.stream_coding import measure_coding
    from ..engine.pipeline.learning import share_threads
    from ..engine.pipeline.request import UpscaleRequest

    without_effect = {"--slowmo": part.slowmo, "--dedup": reading.dedup}
    if refused := [name for name, given in without_effect.items() if given]:
        raise RequestError(f"Nothing that is learned depends on {' and '.join(refused)}: leave that out.")
    settings = options.settings()
    _, backend = share_threads(Backend(), settings)
    request = UpscaleRequest(
        input=clip, model=model, input_fps=input_fps, backend=backend, **part.values(), **reading.values()
    )
    with (
        interruptible("nothing was written"),
        new_bundle(output, overwrite) as folder,
        progress_bar(no_progress or as_json) as progress,
    ):
        task = progress.add_task(f"adapt {plain(clip.name)}", total=1.0, note="")
        announce = discard if as_json else note
        show = show_steps(progress, task, settings)
        with training_extra():
            from ..export.scene_learner import SceneLearner
        coding = measure_coding(clip)
        learner = SceneLearner(request, settings, folder, show, announce, coding=coding, device=device, keeps_all=True)
        records: list[dict[str, Any]] = []
        with learner:
            while (learned := learner.learn(len(records))) is not None:
                records.append(learned.record)
                if settings.per == "video":
                    break
    if as_json:
        out.print_json(json.dumps(records[0] if settings.per == "video" else records))
        return
    headline(output)
    for number, record in enumerate(records, 1):
        scene = "" if settings.per == "video" else f"Scene {number}: "
        out.print(f"  {scene}{plain(record['reason'])} {record['seconds']:.1f} s.", soft_wrap=True)
        if not record["kept"]:
            note(f"{scene or 'The adaptation was not kept: '}the bundle has its original weights.")


def discard(_: str) -> None:
    """Discard a sentence, where the record has it."""


def open_learner(
    request: "UpscaleRequest", settings: "AdaptSettings", folder: Path, on_step: "OnStep", announce: "Announce"
) -> "Learner":
    """Open the learner of a run, which learns on the device of the run, or where PyTorch can if it cannot use that."""
    from ..engine.media.stream_coding import measure_coding

    with training_extra():
        from ..export.scene_learner import SceneLearner
        from ..training.run import find_device

    device = request.backend.by_device()[0].device
    try:
        find_device(device)
    except BackendError:
        device = "auto"
    coding = measure_coding(request.input)
    return SceneLearner(request, settings, folder, on_step, announce, coding=coding, device=device)


def learn_beside(
    request: "UpscaleRequest", settings: "AdaptSettings", on_step: "OnStep", announce: "Announce"
) -> tuple["UpscaleRequest", "Adapting"]:
    """Return a request with its share of the CPUs, and how its bundles are adapted by a process beside it."""
    from ..engine.pipeline.adaptation import Adapting
    from ..engine.pipeline.learning import BackgroundLearner, share_threads

    run, learner = share_threads(request.backend, settings)

    def open_beside(local: "UpscaleRequest", folder: Path) -> "Learner":
        return BackgroundLearner(open_learner, replace(local, backend=learner), settings, folder, on_step, announce)

    return replace(request, backend=run), Adapting(settings, open_beside, learns_ahead=settings.per == "scene")


def check_learner() -> None:
    """Raise BackendError, which names what to install, if PyTorch is missing; it is not imported."""
    with training_extra():
        if find_spec("torch") is None:
            raise ModuleNotFoundError("There is no module torch.", name="torch")


def show_steps(
    progress: "Progress", task: "TaskID", settings: "AdaptSettings", events: "RunEvents | None" = None
) -> Callable[[int, float, int], None]:
    """Return a function that shows the steps of a learner on a bar, and sends the events of a run that waits for it."""

    def show(unit: int, share: float, steps: int) -> None:
        is_scene = settings.per == "scene"
        name = f"adapt to scene {unit + 1}" if is_scene else "adapt"
        progress.update(task, description=name, completed=share, total=1.0, note=f"step {steps}")
        if events is not None and is_scene:
            events.learn(unit + 1)

    return show
