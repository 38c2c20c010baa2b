"""The commands that make networks and judge them: export, train, evaluate."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from .engine.contract.errors import BackendError, RequestError
from .terminal import err, interruptible, out, plain, progress_bar, read_pairs

_META_TRAINED = ("adavsr", "adavsr-s")


@contextmanager
def training_extra() -> Iterator[None]:
    """Says what to install when PyTorch or the exporter is absent."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("torch", "onnx", "onnxscript"):
            raise
        raise BackendError(
            f'This command needs {error.name}, which is not installed: pip install "stvsr[training]".'
        ) from error


@contextmanager
def user_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turns errors of the training room, which knows nothing of the engine's, into the user's."""
    try:
        yield
    except kinds as error:
        text = str(error.args[0]) if isinstance(error, KeyError) else str(error)  # which would quote its sentence
        raise RequestError(text if text.endswith(".") else f"{text}.") from error


def export(
    network: Annotated[str, typer.Argument(help="A network's name, as videoinr-s.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The bundle's folder.")],
    weights: Annotated[
        Path | None, typer.Option("--weights", help="A weights.pt of `stvsr train`, or an official checkpoint.")
    ] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Take random weights: to measure speed, not to look at.")
    ] = False,
    config: Annotated[
        list[str] | None, typer.Option("-c", metavar="KEY=VALUE", help="Of the network's configuration, as frames=7.")
    ] = None,
    scores: Annotated[Path | None, typer.Option(help="JSON of `stvsr evaluate`, kept in the manifest.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
) -> None:
    """Turn trained weights into a bundle of exported graphs."""
    with training_extra():
        from .engine.contract.errors import CheckpointError
        from .export.exporter import export_bundle
        from .training.checkpoints import load_weights, random_weights
        from .training.networks.registry import configured, find_network

        if (weights is None) != untrained:
            raise RequestError("Choose one of --weights FILE and --untrained.")
        with user_errors(KeyError, CheckpointError, ValueError):
            entry, changes = find_network(network), read_pairs(config or [])
            trained, training = (
                load_weights(entry, weights, changes) if weights else random_weights(configured(entry, changes))
            )
        with user_errors(json.JSONDecodeError):
            judged = json.loads(scores.read_text()) if scores else {}
        kept = {key: judged[key] for key in ("protocol", "mean", "gain_db") if key in judged}
        folder = export_bundle(entry, trained, output, training, kept, overwrite)
    out.print(f"[bold]{plain(folder)}[/]", soft_wrap=True)


def train(
    network: Annotated[str, typer.Argument(help="A network's name, as videoinr-s.")],
    data: Annotated[Path, typer.Option("--data", help="A folder of clips.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder of the run.  [default: runs/NETWORK]")
    ] = None,
    validation: Annotated[Path | None, typer.Option("--val", help="A folder of clips to validate on.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of decoded clips.  [default: in the run's]")] = None,
    steps: Annotated[int, typer.Option(help="Optimizer steps in all.", min=1)] = 40_000,
    stage_two_at: Annotated[
        int | None, typer.Option(help="Step at which scales become uniform.  [default: 5/6 of the steps]")
    ] = None,
    batch: Annotated[int, typer.Option(help="Samples per step.", min=1)] = 4,
    patch: Annotated[int, typer.Option(help="Side of a low-resolution crop in pixels.", min=16)] = 48,
    rate: Annotated[float, typer.Option("--lr", help="Highest learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of weights and samples.")] = 0,
    config: Annotated[
        list[str] | None, typer.Option("-c", metavar="KEY=VALUE", help="Of the network's configuration, as width=64.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option("--start", help="Begin with the weights of this file that fit, as of a smaller network."),
    ] = None,
    perceptual: Annotated[
        Path | None,
        typer.Option("--perceptual", help="Weights of torchvision's VGG-19: adds the loss of its features."),
    ] = None,
    motion: Annotated[
        Path | None, typer.Option("--motion", help="Weights of a toflow: adds the loss of motion consistency.")
    ] = None,
    meta: Annotated[
        list[str] | None,
        typer.Option("--meta", metavar="KEY=VALUE", help="Of Ada-VSR's meta-training, as steps=300, first_order=true."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda:0.")] = "cpu",
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress bar.")] = False,
) -> None:
    """Train a network on a folder of clips; a run that was stopped goes on where it stood.

    `adavsr` and `adavsr-s` are both modules of Ada-VSR: each is trained by itself, then both by meta-transfer learning.
    """
    meta_trained = network in _META_TRAINED
    single = {"-c": config, "--start": start, "--perceptual": perceptual, "--motion": motion}
    if meta_trained and (given := [option for option, value in single.items() if value]):
        raise RequestError(f"{network} is two networks, and {', '.join(given)} of one: train each by its own name.")
    if meta and not meta_trained:
        raise RequestError(f"--meta is of {' and '.join(_META_TRAINED)}, not of {network}: leave it out.")
    with training_extra(), user_errors(KeyError, FileNotFoundError, ValueError):
        from .training.data import Sampling
        from .training.trainer import Schedule

        if stage_two_at is None:
            stage_two_at = steps * 5 // 6
        training = _Training(
            data=data,
            run=output or Path("runs") / network,
            validation=validation,
            cache=cache,
            schedule=Schedule(steps=steps, stage_two_at=stage_two_at, learning_rate=rate, seed=seed),
            sampling=Sampling(patch=patch, batch=batch),
            device=device,
            no_progress=no_progress,
        )
        if meta_trained:
            _train_adavsr(network, training, read_pairs(meta or []))
        else:
            _train_one(network, training, read_pairs(config or []), start, perceptual, motion)


@dataclass(frozen=True)
class _Training:
    """What any network's training is told."""

    data: Path
    run: Path
    validation: Path | None
    cache: Path | None
    schedule: Any  # a Schedule and a Sampling, of the room that is imported only where it is used
    sampling: Any
    device: str
    no_progress: bool

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A bar, of a run that may be interrupted."""
        with interruptible("the same command goes on from the last checkpoint"), progress_bar(self.no_progress) as bar:
            yield bar


def _train_one(
    network: str,
    training: _Training,
    config: dict[str, str],
    start: Path | None,
    perceptual: Path | None,
    motion: Path | None,
) -> None:
    import torch

    from .engine.pipeline.flow import picture_flow
    from .training.checkpoints import begin_with, load_weights, read_state_dict
    from .training.networks.losses import PENALTY_WEIGHT, MotionConsistency, Perceptual
    from .training.networks.registry import configured, find_network
    from .training.trainer import Trainer

    entry = configured(find_network(network), config)
    torch.manual_seed(training.schedule.seed)
    built = entry.build(entry.config)
    if start and (lacking := begin_with(built, start)):
        err.print(f"{plain(start)} lacks {len(lacking)} of {len(built.state_dict())} weights: these are new.")
    penalties: list[tuple[Any, float]] = []
    if perceptual:
        penalties.append((Perceptual(read_state_dict(perceptual)), PENALTY_WEIGHT))
    if motion:
        flow_network: Any = load_weights(find_network("toflow"), motion)[0]
        penalties.append((MotionConsistency(flow_network.spynet), PENALTY_WEIGHT))
    trainer = Trainer(
        built,
        asdict(entry.config),
        training.schedule,
        training.sampling,
        training.run,
        training.device,
        picture_flow,
        penalties,
    )
    if trainer.step:
        err.print(f"Going on from step {trainer.step} of {plain(training.run)}.")
    with training.progress() as progress:
        task = progress.add_task(f"train {network}", total=training.schedule.steps, completed=trainer.step, note="")
        scores = trainer.fit(
            training.data,
            training.validation,
            training.cache,
            lambda step, loss: progress.update(task, completed=step, note=f"loss {loss:.4f}"),
        )
    out.print(f"[bold]{plain(training.run / 'weights.pt')}[/]", soft_wrap=True)
    for name, value in scores.items():
        out.print(f"  {name} {value:.3f} dB")


def _train_adavsr(network: str, training: _Training, meta: dict[str, str]) -> None:
    from .training.meta_trainer import MetaSchedule, train_adavsr
    from .training.networks.registry import find_network, with_changes

    ending = network.removeprefix("adavsr")
    large_scale = training.schedule
    schedule = with_changes(MetaSchedule(seed=large_scale.seed), meta, "meta-training")
    with training.progress() as progress:
        tasks = {
            part: progress.add_task(f"train {part}", total=total, note="")
            for part, total in (
                ("temporal", large_scale.steps),
                ("spatial", large_scale.steps),
                ("meta", schedule.steps),
            )
        }
        scores = train_adavsr(
            find_network(f"adavsr-temporal{ending}"),
            find_network(f"adavsr-spatial{ending}"),
            large_scale,
            schedule,
            training.sampling,
            training.data,
            training.run,
            training.validation,
            training.cache,
            training.device,
            lambda part, step, loss: progress.update(tasks[part], completed=step, note=f"loss {loss:.4f}"),
        )
    out.print(f"[bold]{plain(training.run / 'meta')}[/]", soft_wrap=True)
    for part, found in scores.items():
        out.print(f"  {part}: " + ", ".join(f"{key} {value:.2f}" for key, value in found.items()), soft_wrap=True)


def evaluate(
    bundle: Annotated[str, typer.Argument(help="A bundle (name or folder), or TEMPORAL+SPATIAL.")],
    clips: Annotated[list[Path], typer.Argument(help="Clips, or folders of them.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the scores here as JSON.")] = None,
    scale: Annotated[int | None, typer.Option("-s", "--scale", help="Spatial factor.  [default: 4]", min=1)] = None,
    factor: Annotated[
        int | None, typer.Option("-t", "--factor", help="Every how many-th frame is seen.  [default: 2]", min=1)
    ] = None,
    flow: Annotated[str | None, typer.Option(help="Optical flow: farneback or dis.  [default: the bundle's]")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, or cuda:0.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads of the network.", min=1)] = None,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Judge a bundle on clips: PSNR and SSIM on luma, at input times and between, beside bicubic."""
    import av

    from .engine.contract.bundle import find_bundles
    from .engine.contract.picture import to_float
    from .engine.contract.windows import one_scene
    from .engine.pipeline.chain import Route, default_factor, default_scale, plan_route

    if output and not output.parent.is_dir():
        raise RequestError(f"The folder {output.parent} of the scores does not exist: make it first.")

    with training_extra(), user_errors(FileNotFoundError, ValueError, av.FFmpegError):
        from .training.clips import find_clips
        from .training.evaluation import METHODS, Protocol
        from .training.evaluation import evaluate as run

        bundles = find_bundles(bundle)
        devices: set[str] = set()

        def upscaled(frames: Iterable[Any], factor: int, size: tuple[int, int]) -> Iterator[Any]:
            first = next(stream := iter(frames))
            legs = plan_route(bundles, first.shape[1:], size, factor)
            times = tuple(Fraction(part, factor) for part in range(factor))
            with Route(legs, device=device, threads=threads, flow=flow) as route:
                devices.add(route.device)
                for frame in route.frames(one_scene(chain([first], stream), times)):
                    yield to_float(frame)

        protocol = Protocol(
            scale=round(default_scale(bundles)) if scale is None else scale,
            factor=default_factor(bundles) if factor is None else factor,
            exposure=any(b.manifest.window.kind == "doubled" for b in bundles),
        )
        with progress_bar(no_progress) as progress:
            found = find_clips(*clips)
            task = progress.add_task("", total=None, note="frames")
            scores = run(
                found,
                upscaled,
                protocol,
                lambda clip: progress.update(task, description=plain(clip.name)),
                lambda: progress.advance(task),
            )
        graphs = {b.manifest.name: {graph.role: graph.sha256 for graph in b.manifest.graphs} for b in bundles}
        scores = {"bundle": "+".join(graphs), "graphs_sha256": graphs, "device": ", ".join(devices), **scores}
    if output:
        output.write_text(json.dumps(scores, indent=1) + "\n")
    if as_json:
        out.print_json(json.dumps(scores))
        return
    table = Table("clip", "frames", *(f"{m} PSNR / SSIM" for m in METHODS), box=None)
    rows = [*scores["clips"].items(), ("mean", scores["mean"])]
    for clip, when in ((c, w) for w in ("at", "between") for c in rows):
        figures = clip[1].get(when)
        if figures:
            table.add_row(
                clip[0],
                {"at": "at input times", "between": "between"}[when],
                *(f"{figures[m]['psnr_y_db']:.2f} / {figures[m]['ssim_y']:.4f}" for m in METHODS),
            )
    out.print(table)
    for when, gain in scores["gain_db"].items():
        out.print(f"{gain:+.2f} dB over {METHODS[1]} {'at input times' if when == 'at' else 'between them'}")
