"""The command that trains networks: `train`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from rich.progress import Progress

from ..engine.contract.errors import RequestError
from .options import ConfigOption
from .records import record_options
from .terminal import err, headline, interruptible, out, plain, progress_bar, read_pairs, training_extra

if TYPE_CHECKING:
    from ..training.run import Schedule, TrainingRun

_META_TRAINED = ("adavsr", "adavsr-s")


@dataclass(frozen=True)
class ClipOptions:
    """The clips of a training run."""

    panel: ClassVar = "Clips"

    data: Annotated[list[Path], typer.Option("--data", help="A clip or a folder of clips; repeatable.")]
    validation: Annotated[
        Path | None, typer.Option("--val", help="A folder of clips to validate on.", show_default="none")
    ] = None
    cache: Annotated[Path | None, typer.Option(help="Folder of decoded clips.", show_default="in the run's folder")] = (
        None
    )
    lines: Annotated[
        int | None,
        typer.Option(
            help="Clips of more rows are made smaller, to hide their compression.", min=16, show_default="none"
        ),
    ] = None


@dataclass(frozen=True)
class ScheduleOptions:
    """The steps of a training run."""

    panel: ClassVar = "Steps"

    steps: Annotated[int, typer.Option(help="Optimizer steps in all.", min=1)] = 40_000
    stage_two_at: Annotated[
        int | None,
        typer.Option(
            help="Step from which scales are random, for networks of any scale.",
            min=0,
            show_default="5/6 of the steps",
        ),
    ] = None
    rate: Annotated[float, typer.Option("--lr", help="Highest learning rate.")] = 1e-3
    anneal: Annotated[
        float,
        typer.Option(
            help="Share of the steps, at the end, in which the learning rate falls; before, it stays, so that a run can"
            " be made longer.",
            min=0,
            max=1,
        ),
    ] = 1.0
    seed: Annotated[int, typer.Option(help="Seed of weights and samples.", min=0)] = 0

    def schedule(self) -> "Schedule":
        """Return the schedule. Raises RequestError for a learning rate that is not above 0."""
        from ..training.run import Schedule

        return Schedule(
            steps=self.steps,
            stage_two_at=self.steps * 5 // 6 if self.stage_two_at is None else self.stage_two_at,
            learning_rate=self.rate,
            anneal=self.anneal,
            seed=self.seed,
        )


@dataclass(frozen=True)
class SampleOptions:
    """The samples of a training step."""

    panel: ClassVar = "Samples"

    batch: Annotated[int, typer.Option(help="Samples in a step.", min=1)] = 4
    patch: Annotated[int, typer.Option(help="Side of a low-resolution crop in pixels.", min=16)] = 48
    motion_patch: Annotated[
        int,
        typer.Option(
            help="Side of the crops of every third step, which trains motion alone, also on synthetic motion; 0: none."
            " For fourier-s.",
            min=0,
        ),
    ] = 0
    compressed: Annotated[
        float,
        typer.Option(help="Share of samples at x4 whose inputs passed through x264 or x265, 0 to 1.", min=0, max=1),
    ] = 0.0


@dataclass(frozen=True)
class NetworkOptions:
    """The configuration, the first weights and the further losses of one network."""

    panel: ClassVar = "Network and losses"

    config: ConfigOption = None
    start: Annotated[
        Path | None,
        typer.Option(
            "--start", help="Start from those weights in this file that fit the network.", show_default="random weights"
        ),
    ] = None
    perceptual: Annotated[
        Path | None,
        typer.Option(
            "--perceptual", help="Weights of torchvision's VGG-19: adds a perceptual loss.", show_default="none"
        ),
    ] = None
    motion: Annotated[
        Path | None,
        typer.Option(
            "--motion", help="Weights of a toflow network: adds a motion consistency loss.", show_default="none"
        ),
    ] = None


@dataclass(frozen=True)
class ComputeOptions:
    """The device of a training run, and how it computes."""

    panel: ClassVar = "Device"

    device: Annotated[str, typer.Option(help="auto, cpu, or cuda:N for a GPU by its number.")] = "auto"
    precision: Annotated[
        str, typer.Option(help="fp32, tf32 (faster products on a GPU), or bf16 (mixed precision).")
    ] = "tf32"
    in_memory: Annotated[
        bool, typer.Option("--in-memory", help="Keep clips and their motion in memory on a CPU, as always on a GPU.")
    ] = False
    workers: Annotated[int, typer.Option(help="Processes that draw samples ahead.", min=0)] = 1


@record_options
def train(
    network: Annotated[
        str, typer.Argument(help="A network's name: videoinr-s, ...; adavsr-s trains both its modules.")
    ],
    clips: ClipOptions,
    planned: ScheduleOptions,
    samples: SampleOptions,
    single: NetworkOptions,
    compute: ComputeOptions,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder of the run.", show_default="runs/NETWORK")
    ] = None,
    meta: Annotated[
        list[str] | None,
        typer.Option(
            "--meta",
            metavar="KEY=VALUE",
            help="A value of Ada-VSR's meta-training: steps=300, first_order=true; repeatable.",
            show_default="none",
        ),
    ] = None,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no progress bar.")] = False,
) -> None:
    """Train a network on a folder of clips; the same command resumes a stopped run.

    `adavsr` and `adavsr-s` train both modules of Ada-VSR one after the other, then both by meta-transfer learning.
    """
    meta_trained = network in _META_TRAINED
    of_one = {
        "-c": single.config,
        "--start": single.start,
        "--perceptual": single.perceptual,
        "--motion": single.motion,
        "--stage-two-at": planned.stage_two_at is not None,
        "--compressed": samples.compressed,
        "--motion-patch": samples.motion_patch,
    }
    if meta_trained and (given := [option for option, value in of_one.items() if value]):
        raise RequestError(f"{network} is two networks, and {', '.join(given)} is for one: train each by its own name.")
    if meta and not meta_trained:
        raise RequestError(f"--meta is for {' and '.join(_META_TRAINED)}, not for {network}: leave it out.")
    with training_extra():
        from ..training.data import Sampling
        from ..training.run import TrainingRun, find_device

        run = TrainingRun(
            data=tuple(clips.data),
            lines=clips.lines,
            folder=output or Path("runs") / network,
            validation=clips.validation,
            cache=clips.cache,
            schedule=planned.schedule(),
            sampling=Sampling(
                patch=samples.patch,
                batch=samples.batch,
                compressed=samples.compressed,
                motion_patch=samples.motion_patch,
            ),
            device=find_device(compute.device),
            workers=compute.workers,
            device_data=compute.in_memory or None,
            precision=compute.precision,  # type: ignore[arg-type]  # validated by TrainingRun
        )
        if meta_trained:
            _train_adavsr(network, run, read_pairs(meta or []), no_progress)
        else:
            _train_one(network, run, single, planned.stage_two_at is not None, no_progress)


@contextmanager
def _training_progress(hidden: bool) -> Iterator[Progress]:
    with interruptible("the same command goes on at this step"), progress_bar(hidden) as bar:
        yield bar


def _train_one(
    network: str, run: "TrainingRun", options: NetworkOptions, has_stage_two_at: bool, no_progress: bool
) -> None:
    import torch

    from ..engine.contract.manifest import FixedFactors
    from ..engine.pipeline.flow import picture_flow
    from ..training.checkpoints import build_network, load_matching
    from ..training.data import takes_compressed
    from ..training.networks.registry import configured, find_network
    from ..training.trainer import Trainer

    entry = configured(find_network(network), read_pairs(options.config or []))
    torch.manual_seed(run.schedule.seed)
    built = build_network(entry)
    if has_stage_two_at and isinstance(built.space, FixedFactors):
        raise RequestError(f"--stage-two-at has no effect on {network}, whose scale is {built.space}: leave it out.")
    if run.sampling.compressed and not takes_compressed(built):
        raise RequestError(f"--compressed has no effect on {network}, which does not enlarge x4: leave it out.")
    if run.sampling.motion_patch and not hasattr(built, "motion_loss"):
        raise RequestError(
            f"--motion-patch has no effect on {network}, whose motion is not trained alone: leave it out."
        )
    start = None if run.is_started else options.start
    if start and (missing := load_matching(built, start)):
        err.print(f"{plain(start)} lacks {len(missing)} of {len(built.state_dict())} weights: these start at random.")
    penalties = _penalties(options.perceptual, options.motion)
    trainer = Trainer(built, asdict(entry.config), run, picture_flow, penalties)
    if trainer.step:
        err.print(f"Resuming at step {trainer.step} of {plain(run.folder)}.")
    with _training_progress(no_progress) as progress:
        task = progress.add_task(f"train {network}", total=run.schedule.steps, completed=trainer.step, note="")
        scores = trainer.fit(lambda step, loss: progress.update(task, completed=step, note=f"loss {loss:.4f}"))
    headline(run.folder / "weights.pt")
    if trainer.speed:
        steps, share = trainer.speed
        out.print(f"  {steps:.2f} steps/s on {run.device}, {share:.0%} of the time waiting for data")
    for name, value in scores.items():
        out.print(f"  {name} {value:.3f} dB")


def _penalties(perceptual: Path | None, motion: Path | None) -> list[tuple[Any, float]]:
    """Load the networks of further losses, each with its weight."""
    from ..training.checkpoints import load_weights, read_state_dict
    from ..training.networks.losses import PENALTY_WEIGHT, MotionConsistency, Perceptual
    from ..training.networks.registry import find_network

    penalties: list[tuple[Any, float]] = []
    if perceptual:
        penalties.append((Perceptual(read_state_dict(perceptual)), PENALTY_WEIGHT))
    if motion:
        flow_network: Any = load_weights(find_network("toflow"), motion)[0]
        penalties.append((MotionConsistency(flow_network.spynet), PENALTY_WEIGHT))
    return penalties


def _train_adavsr(network: str, run: "TrainingRun", meta: dict[str, str], no_progress: bool) -> None:
    from ..training.meta_trainer import MetaSchedule, train_adavsr
    from ..training.networks.registry import find_network, with_changes

    suffix = network.removeprefix("adavsr")
    schedule = with_changes(MetaSchedule(seed=run.schedule.seed), meta, "meta-training")
    totals = {"temporal": run.schedule.steps, "spatial": run.schedule.steps, "meta": schedule.steps}
    with _training_progress(no_progress) as progress:
        tasks = {part: progress.add_task(f"train {part}", total=total, note="") for part, total in totals.items()}
        scores = train_adavsr(
            find_network(f"adavsr-temporal{suffix}"),
            find_network(f"adavsr-spatial{suffix}"),
            run,
            schedule,
            lambda part, step, loss: progress.update(tasks[part], completed=step, note=f"loss {loss:.4f}"),
        )
    headline(run.folder / "meta")
    for part, figures in scores.items():
        out.print(f"  {part}: " + ", ".join(f"{key} {value:.2f}" for key, value in figures.items()), soft_wrap=True)
