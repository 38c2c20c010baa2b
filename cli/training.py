"""The commands that make networks: `export` and `train`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from ..engine.contract.errors import RequestError
from .terminal import err, headline, interruptible, out, plain, progress_bar, read_pairs, training_extra

if TYPE_CHECKING:
    from ..training.run import TrainingRun

_META_TRAINED = ("adavsr", "adavsr-s")


def export(
    network: Annotated[str, typer.Argument(help="A network's name: videoinr-s, ...")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the bundle.")],
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="weights.pt of `stvsr train`, or an official checkpoint.", show_default="none"),
    ] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Use random weights, which serve only to measure speed.")
    ] = False,
    config: Annotated[
        list[str] | None,
        typer.Option(
            "-c", metavar="KEY=VALUE", help="A value of the network's configuration; repeatable.", show_default="none"
        ),
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(help="JSON of `stvsr evaluate`, for the manifest.", show_default="none")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing bundle.")] = False,
) -> None:
    """Export trained weights as a bundle of graphs, checked against PyTorch."""
    if (weights is None) != untrained:
        raise RequestError("Choose either --weights FILE or --untrained.")
    judged = _read_scores(scores) if scores else {}
    with training_extra():
        from ..export.exporter import export_bundle
        from ..training.checkpoints import load_weights, random_weights
        from ..training.networks.registry import configured, find_network

        entry, changes = find_network(network), read_pairs(config or [])
        trained, training = (
            load_weights(entry, weights, changes) if weights else random_weights(configured(entry, changes))
        )
        kept: dict[str, Any] = {key: judged[key] for key in ("protocol", "mean", "gain_db") if key in judged}
        folder = export_bundle(entry, trained, output, training, kept, overwrite)
    headline(folder)


def _read_scores(path: Path) -> dict[str, Any]:
    """Read the JSON of `stvsr evaluate`. Raises RequestError for a missing or damaged file."""
    try:
        judged = json.loads(path.read_text())
    except OSError as error:
        raise RequestError(f"The scores {path} cannot be read ({error.strerror}): choose another file.") from error
    except ValueError as error:
        raise RequestError(f"The scores {path} are not JSON ({error}): run `stvsr evaluate -o` again.") from error
    if not isinstance(judged, dict):
        raise RequestError(f"The scores {path} are not those of `stvsr evaluate`: run it again with -o.")
    if "evaluations" in judged:
        raise RequestError(f"The scores {path} are those of several bundles: evaluate the one that is exported, alone.")
    return judged


def train(
    network: Annotated[
        str, typer.Argument(help="A network's name: videoinr-s, ...; adavsr-s trains both its modules.")
    ],
    data: Annotated[list[Path], typer.Option("--data", help="A clip or a folder of clips; repeatable.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder of the run.", show_default="runs/NETWORK")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option("--val", help="A folder of clips to validate on.", show_default="none")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of decoded clips.", show_default="in the run's folder")
    ] = None,
    lines: Annotated[
        int | None,
        typer.Option(
            help="Clips of more rows are made smaller, to hide their compression.", min=16, show_default="none"
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimizer steps in all.", min=1)] = 40_000,
    stage_two_at: Annotated[
        int | None,
        typer.Option(
            help="Step from which scales are random, for networks of any scale.", show_default="5/6 of the steps"
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Samples in a step.", min=1)] = 4,
    patch: Annotated[int, typer.Option(help="Side of a low-resolution crop in pixels.", min=16)] = 48,
    motion_patch: Annotated[
        int,
        typer.Option(
            help="Side of the crops of every third step, which trains motion alone, also on synthetic motion; 0: none."
            " For fourier-s.",
            min=0,
        ),
    ] = 0,
    compressed: Annotated[
        float,
        typer.Option(help="Share of samples at x4 whose inputs passed through x264 or x265, 0 to 1.", min=0, max=1),
    ] = 0.0,
    rate: Annotated[float, typer.Option("--lr", help="Highest learning rate.")] = 1e-3,
    anneal: Annotated[
        float,
        typer.Option(
            help="Share of the steps, at the end, in which the learning rate falls; before, it stays, so that a run can"
            " be made longer.",
            min=0,
            max=1,
        ),
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of weights and samples.")] = 0,
    config: Annotated[
        list[str] | None,
        typer.Option(
            "-c", metavar="KEY=VALUE", help="A value of the network's configuration; repeatable.", show_default="none"
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--start", help="Start from those weights in this file that fit the network.", show_default="random weights"
        ),
    ] = None,
    perceptual: Annotated[
        Path | None,
        typer.Option(
            "--perceptual", help="Weights of torchvision's VGG-19: adds a perceptual loss.", show_default="none"
        ),
    ] = None,
    motion: Annotated[
        Path | None,
        typer.Option(
            "--motion", help="Weights of a toflow network: adds a motion consistency loss.", show_default="none"
        ),
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
    device: Annotated[str, typer.Option(help="auto, cpu, or cuda:N for a GPU by its number.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="fp32, tf32 (faster products on a GPU), or bf16 (mixed precision).")
    ] = "tf32",
    in_memory: Annotated[
        bool, typer.Option("--in-memory", help="Keep clips and their motion in memory on a CPU, as always on a GPU.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes that draw samples ahead.", min=0)] = 1,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no progress bar.")] = False,
) -> None:
    """Train a network on a folder of clips; the same command resumes a stopped run.

    `adavsr` and `adavsr-s` train both modules of Ada-VSR one after the other, then both by meta-transfer learning.
    """
    meta_trained = network in _META_TRAINED
    single = {
        "-c": config,
        "--start": start,
        "--perceptual": perceptual,
        "--motion": motion,
        "--stage-two-at": stage_two_at,
        "--compressed": compressed,
        "--motion-patch": motion_patch,
    }
    if meta_trained and (given := [option for option, value in single.items() if value]):
        raise RequestError(f"{network} is two networks, and {', '.join(given)} is for one: train each by its own name.")
    if meta and not meta_trained:
        raise RequestError(f"--meta is for {' and '.join(_META_TRAINED)}, not for {network}: leave it out.")
    with training_extra():
        from ..training.data import Sampling
        from ..training.run import Schedule, TrainingRun, find_device

        schedule = Schedule(
            steps=steps,
            stage_two_at=steps * 5 // 6 if stage_two_at is None else stage_two_at,
            learning_rate=rate,
            anneal=anneal,
            seed=seed,
        )
        run = TrainingRun(
            data=tuple(data),
            lines=lines,
            folder=output or Path("runs") / network,
            validation=validation,
            cache=cache,
            schedule=schedule,
            sampling=Sampling(patch=patch, batch=batch, compressed=compressed, motion_patch=motion_patch),
            device=find_device(device),
            workers=workers,
            device_data=in_memory or None,
            precision=precision,  # type: ignore[arg-type]  # validated by TrainingRun
        )
        if meta_trained:
            _train_adavsr(network, run, read_pairs(meta or []), no_progress)
        else:
            _train_one(network, run, read_pairs(config or []), start, perceptual, motion, stage_two_at, no_progress)


@contextmanager
def _training_progress(hidden: bool) -> Iterator[Progress]:
    with interruptible("the same command resumes from the last checkpoint"), progress_bar(hidden) as bar:
        yield bar


def _train_one(
    network: str,
    run: "TrainingRun",
    config: dict[str, str],
    start: Path | None,
    perceptual: Path | None,
    motion: Path | None,
    stage_two_at: int | None,
    no_progress: bool,
) -> None:
    import torch

    from ..engine.contract.manifest import FixedFactors
    from ..engine.pipeline.flow import picture_flow
    from ..training.checkpoints import build_network, load_matching
    from ..training.data import takes_compressed
    from ..training.networks.registry import configured, find_network
    from ..training.trainer import Trainer

    entry = configured(find_network(network), config)
    torch.manual_seed(run.schedule.seed)
    built = build_network(entry)
    if stage_two_at is not None and isinstance(built.space, FixedFactors):
        raise RequestError(f"--stage-two-at has no effect on {network}, whose scale is {built.space}: leave it out.")
    if run.sampling.compressed and not takes_compressed(built):
        raise RequestError(f"--compressed has no effect on {network}, which does not enlarge x4: leave it out.")
    if run.sampling.motion_patch and not hasattr(built, "motion_loss"):
        raise RequestError(
            f"--motion-patch has no effect on {network}, whose motion is not trained alone: leave it out."
        )
    if start and (missing := load_matching(built, start)):
        err.print(f"{plain(start)} lacks {len(missing)} of {len(built.state_dict())} weights: these start at random.")
    trainer = Trainer(built, asdict(entry.config), run, picture_flow, _penalties(perceptual, motion))
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
