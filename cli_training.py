"""The commands that need PyTorch: export, train, adapt, evaluate."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from .engine.errors import BackendError, RequestError
from .terminal import err, interruptible, out, plain, progress_bar, read_pairs, read_rate

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from .engine.pipeline import Adaptation
    from .engine.request import UpscaleRequest
    from .export.adaptation import Options

_META_TRAINED = ("adavsr", "adavsr-s")
_SECONDS = 10.0  # of adaptation, unless told


@contextmanager
def _training_extra() -> Iterator[None]:
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
def _user_errors(*kinds: type[Exception]) -> Iterator[None]:
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
    with _training_extra():
        from .export.exporter import export_bundle
        from .training.checkpoints import CheckpointError, load_weights, random_weights
        from .training.networks import configured, find_network

        if (weights is None) != untrained:
            raise RequestError("Choose one of --weights FILE and --untrained.")
        with _user_errors(KeyError, CheckpointError, ValueError):
            entry, changes = find_network(network), read_pairs(config or [])
            trained, training = (
                load_weights(entry, weights, changes) if weights else random_weights(configured(entry, changes))
            )
        with _user_errors(json.JSONDecodeError):
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
    if network in _META_TRAINED:
        _train_adavsr(
            network, data, output, validation, cache, steps, batch, patch, rate, seed, meta, device, no_progress
        )
        return
    with _training_extra():
        import torch

        from .engine.flow import picture_flow
        from .training.checkpoints import load_weights, read_state_dict
        from .training.data import Sampling
        from .training.losses import PENALTY_WEIGHT, MotionConsistency, Perceptual
        from .training.networks import configured, find_network
        from .training.trainer import Schedule, Trainer

        with _user_errors(KeyError, FileNotFoundError, ValueError):
            entry = configured(find_network(network), read_pairs(config or []))
            schedule = Schedule(
                steps=steps,
                stage_two_at=steps * 5 // 6 if stage_two_at is None else stage_two_at,
                learning_rate=rate,
                seed=seed,
            )
            torch.manual_seed(seed)
            run = output or Path("runs") / network
            sampling = Sampling(patch=patch, batch=batch)
            built = entry.build(entry.config)
            penalties: list[tuple[Any, float]] = []
            if perceptual:
                penalties.append((Perceptual(read_state_dict(perceptual)), PENALTY_WEIGHT))
            if motion:
                flow_network: Any = load_weights(find_network("toflow"), motion)[0]
                penalties.append((MotionConsistency(flow_network.spynet), PENALTY_WEIGHT))
            trainer = Trainer(built, asdict(entry.config), schedule, sampling, run, device, picture_flow, penalties)
            if trainer.step:
                err.print(f"Going on from step {trainer.step} of {plain(run)}.")
            with (
                interruptible("the same command goes on from the last checkpoint"),
                progress_bar(no_progress) as progress,
            ):
                task = progress.add_task(f"train {network}", total=steps, completed=trainer.step, note="")
                scores = trainer.fit(
                    data,
                    validation,
                    cache,
                    lambda step, loss: progress.update(task, completed=step, note=f"loss {loss:.4f}"),
                )
    out.print(f"[bold]{plain(run / 'weights.pt')}[/]", soft_wrap=True)
    for name, value in scores.items():
        out.print(f"  {name} {value:.3f} dB")


def _train_adavsr(
    network: str,
    data: Path,
    output: Path | None,
    validation: Path | None,
    cache: Path | None,
    steps: int,
    batch: int,
    patch: int,
    rate: float,
    seed: int,
    meta: list[str] | None,
    device: str,
    no_progress: bool,
) -> None:
    with _training_extra():
        from .training.data import Sampling
        from .training.meta_trainer import MetaSchedule, train_adavsr
        from .training.networks import find_network, with_changes
        from .training.trainer import Schedule

        ending = network.removeprefix("adavsr")
        run = output or Path("runs") / network
        with _user_errors(KeyError, FileNotFoundError, ValueError):
            schedule = with_changes(MetaSchedule(seed=seed), read_pairs(meta or []), "meta-training")
            large_scale = Schedule(steps=steps, stage_two_at=steps, learning_rate=rate, seed=seed)
            with (
                interruptible("the same command goes on from the last checkpoint"),
                progress_bar(no_progress) as progress,
            ):
                tasks = {
                    part: progress.add_task(f"train {part}", total=total, note="")
                    for part, total in (("temporal", steps), ("spatial", steps), ("meta", schedule.steps))
                }
                scores = train_adavsr(
                    find_network(f"adavsr-temporal{ending}"),
                    find_network(f"adavsr-spatial{ending}"),
                    large_scale,
                    schedule,
                    Sampling(patch=patch, batch=batch),
                    data,
                    run,
                    validation,
                    cache,
                    device,
                    lambda part, step, loss: progress.update(tasks[part], completed=step, note=f"loss {loss:.4f}"),
                )
    out.print(f"[bold]{plain(run / 'meta')}[/]", soft_wrap=True)
    for part, found in scores.items():
        out.print(f"  {part}: " + ", ".join(f"{key} {value:.2f}" for key, value in found.items()), soft_wrap=True)


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
    input_fps: Annotated[str | None, typer.Option(help="Frame rate of a folder of PNGs.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Adapt a bundle to one clip, and write it with its new weights."""
    from .engine.bundle import find_bundles, new_bundle
    from .engine.pipeline import read_scenes
    from .engine.request import UpscaleRequest

    request = UpscaleRequest(input=clip, model=model, input_fps=read_rate(input_fps) if input_fps else None)
    bundles = find_bundles(model)
    with _training_extra(), new_bundle(output, overwrite) as folder, progress_bar(no_progress or as_json) as progress:
        from .export.adaptation import BundleAdapter, write_unadapted

        options = _adaptation(method, steps, adapt_seconds, teacher, estimate_blur, checkpoint, seed)
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
    from .engine.bundle import find_bundles
    from .engine.pipeline import Adaptation, read_scenes

    if per not in ("scene", "video"):
        raise RequestError(f"'{per}' is nothing to adapt to: write --adapt-per scene or --adapt-per video.")
    with _training_extra():
        from .export.adaptation import BundleAdapter

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
    seed: int = 0,
) -> "Options":
    from .engine.bundle import find_bundle
    from .export.adaptation import Options
    from .training.adapt.protocol import Budget

    if seconds is None and steps is None:
        seconds = _SECONDS
    with _user_errors(ValueError):
        budget = Budget(steps, seconds)
    return Options(budget, method, find_bundle(teacher) if teacher else None, estimate_blur, checkpoint, seed)


def _told_on(progress: "Progress", task: "TaskID") -> Callable[[Any, float], None]:
    return lambda clock, loss: progress.update(task, completed=clock.fraction(), note=f"step {clock.steps}")


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
    import numpy as np

    from .engine.bundle import find_bundles
    from .engine.place import FULL_SCALE
    from .engine.route import Route, default_factor, default_scale, plan_route
    from .engine.windows import one_scene

    if output and not output.parent.is_dir():
        raise RequestError(f"The folder {output.parent} of the scores does not exist: make it first.")

    with _training_extra(), _user_errors(FileNotFoundError, ValueError, av.FFmpegError):
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
                    yield frame.astype(np.float32) / FULL_SCALE

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
