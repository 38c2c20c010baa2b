"""The command line: ``stvsr upscale | models | info | compile | export | train | evaluate``."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from . import __version__
from .engine.errors import BackendError, RequestError, StvsrError

if TYPE_CHECKING:
    from .engine.pipeline import Report

app = typer.Typer(
    help="Upscale video in space and time.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_SHIPPED = "videoinr-s"


def main() -> None:
    """Runs the command line; an error that the user can mend is one line and exit code 1."""
    try:
        app()
    except StvsrError as error:
        _fail(_plain(error))
    except OSError as error:
        _fail(f"{_plain(error.filename or 'The system')} cannot be used: {_plain(error.strerror or error)}.")


def _fail(sentence: str) -> NoReturn:
    err.print(f"[bold red]Error:[/] {sentence}", soft_wrap=True)
    sys.exit(1)


@contextmanager
def _interruptible(consequence: str) -> Iterator[None]:
    """Says what Ctrl-C left behind."""
    try:
        yield
    except KeyboardInterrupt:
        err.print(f"Interrupted: {consequence}.")
        raise typer.Exit(130) from None


def _plain(text: object) -> str:
    """The text with nothing in it that rich would read as markup."""
    return escape(str(text))


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"stvsr {__version__}")
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    """Upscale video in space and time."""


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise RequestError(f"'{text}' is no size: write width and height in pixels, as in 1280x720.") from None
    if min(width, height) < 1:
        raise RequestError(f"'{text}' is no size: width and height are at least 1.")
    return width, height


def _rate(text: str) -> Fraction:
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise RequestError(
            f"'{text}' is no frame rate: write a number or a fraction, as in 60 or 60000/1001."
        ) from None
    if rate <= 0:
        raise RequestError(f"'{text}' is no frame rate: it must be above 0.")
    return rate


def _pairs(items: list[str]) -> dict[str, str]:
    pairs = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not (key and equals):
            raise RequestError(f"'{item}' is no option: write key=value, as in -e preset=slow or -c frames=7.")
        pairs[key] = value
    return pairs


@app.command()
def upscale(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A video, or a folder of PNGs.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: STEM_x4_60fps.mp4 beside INPUT.")
    ] = None,
    scale: Annotated[float | None, typer.Option("-s", "--scale", help="Spatial factor.  [default: 4]")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Target size instead of a factor.")] = None,
    factor: Annotated[int | None, typer.Option("-t", "--factor", help="Frames out per frame in.  [default: 2]")] = None,
    fps: Annotated[str | None, typer.Option(help="Target frame rate instead of a factor.")] = None,
    model: Annotated[
        str, typer.Option("-m", "--model", help="A bundle's name or folder, or TEMPORAL+SPATIAL.")
    ] = _SHIPPED,
    flow: Annotated[
        str | None,
        typer.Option(help="Optical flow of networks that take it: farneback or dis.  [default: the bundle's]"),
    ] = None,
    backend: Annotated[str, typer.Option(help="What runs the graphs: ort, or tensorrt.")] = "ort",
    device: Annotated[str, typer.Option(help="auto, cpu, or cuda:0.")] = "auto",
    precision: Annotated[str, typer.Option(help="Of engines: fp32 or fp16.")] = "fp32",
    library: Annotated[
        str | None, typer.Option(help="Of engines: tensorrt or tensorrt-rtx.  [default: the installed one]")
    ] = None,
    tile: Annotated[
        int | None, typer.Option(help="Side of a tile in input pixels; 0: none.  [default: by size]")
    ] = None,
    scene_threshold: Annotated[
        float | None, typer.Option(help="0 to 1, lower finds more scene cuts; 0: none.  [default: tuned]")
    ] = None,
    codec: Annotated[str | None, typer.Option(help="Encoder, as libx264, libx265, libvpx-vp9.")] = None,
    crf: Annotated[int | None, typer.Option(help="Encoder quality, lower is better.")] = None,
    encoder_option: Annotated[list[str] | None, typer.Option("-e", metavar="KEY=VALUE", help="Encoder option.")] = None,
    pix_fmt: Annotated[str | None, typer.Option("--pix-fmt", help="Pixel format, as yuv420p10le.")] = None,
    input_fps: Annotated[str | None, typer.Option(help="Frame rate of a folder of PNGs.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of the network.", min=1)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that is there.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Make a video larger and smoother."""
    from .engine.pipeline import upscale as run
    from .engine.request import UpscaleRequest

    given: dict[str, Any] = {} if scene_threshold is None else {"scene_threshold": scene_threshold}
    request = UpscaleRequest(
        input=source,
        output=output,
        scale=scale,
        size=_size(size) if size else None,
        time_factor=factor,
        fps=_rate(fps) if fps else None,
        model=model,
        flow=flow,
        backend=backend,
        device=device,
        precision=precision,  # type: ignore[arg-type]  # checked when graphs are opened
        library=library,  # type: ignore[arg-type]
        tile=tile,
        codec=codec,
        crf=crf,
        encoder_options=_pairs(encoder_option or []),
        pix_fmt=pix_fmt,
        overwrite=overwrite,
        input_fps=_rate(input_fps) if input_fps else None,
        threads=threads,
        **given,
    )
    with (
        _interruptible("nothing was written"),
        _frames_bar(source.name, hidden=no_progress or as_json) as advance,
    ):
        report = run(request, lambda p: advance(p.frames_in, p.total_in, p.frames_out / max(p.seconds, 1e-9)))
    if as_json:
        out.print_json(json.dumps(report.as_dict()))
    else:
        _print_report(report)


def _progress(hidden: bool) -> Progress:
    """A bar with how much is done, a note, and the time gone and left; nothing where no terminal shows it."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=err,
        disable=hidden or not err.is_terminal,
        transient=True,
    )


@contextmanager
def _frames_bar(name: str, hidden: bool) -> Iterator[Callable[[int, int | None, float], None]]:
    """A progress bar over input frames: how many, how fast, how long still."""
    with _progress(hidden) as progress:
        task = progress.add_task(_plain(name), total=None, note="")

        def advance(done: int, total: int | None, per_second: float) -> None:
            progress.update(task, completed=done, total=total, note=f"{per_second:.1f} frames/s out")

        yield advance


def _print_report(report: "Report") -> None:
    size = "{}x{} -> {}x{}".format(*report.size_in, *report.size_out)
    cuts = f", {len(report.cuts_s)} scene cut{'s' * (len(report.cuts_s) != 1)}" if report.cuts_s else ""
    out.print(f"[bold]{_plain(report.output)}[/]", soft_wrap=True)
    out.print(
        f"  {size}, {report.frames_in} -> {report.frames_out} frames{cuts}, {float(Fraction(report.rate_out)):g} fps; "
        f"{report.seconds:.1f} s, {report.fps:.1f} frames/s, {report.bundle} on {report.device}",
        soft_wrap=True,
    )
    for warning in report.warnings:
        err.print(f"[yellow]Note:[/] {_plain(warning)}", soft_wrap=True)


@app.command()
def models(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the bundles that the package ships."""
    from .engine.bundle import Bundle, shipped_bundles

    bundles = {name: Bundle.load(folder) for name, folder in shipped_bundles().items()}
    if as_json:
        out.print_json(json.dumps({name: _bundle_facts(bundle) for name, bundle in bundles.items()}))
        return
    table = Table("name", "network", "space", "time", "size", "licence", box=None)
    for name, bundle in bundles.items():
        facts = _bundle_facts(bundle)
        table.add_row(
            name, facts["network"], facts["space"], facts["time"], f"{facts['bytes'] / 1e6:.1f} MB", facts["licence"]
        )
    out.print(table)


@app.command("compile")
def compile_(
    bundle: Annotated[str, typer.Argument(help="A bundle's name or folder.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A new folder for the bundle.  [default: where it is]")
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32 or fp16.")] = "fp32",
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MIN/USUAL/MAX",
            help="Frames as 64x64/640x360/1280x720, another axis as batch=1/1/4; one size alone is a fixed one.",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Compute capabilities, as sm89,sm120.  [default: the GPU's, or the usual ones]")
    ] = None,
    library: Annotated[str | None, typer.Option(help="tensorrt or tensorrt-rtx.  [default: the installed one]")] = None,
    refit: Annotated[bool, typer.Option("--refit", help="Let weights be replaced in open engines.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the engines as JSON.")] = False,
) -> None:
    """Compile a bundle's graphs into engines, beside them."""
    from .engine.bundle import copy_bundle, find_bundle
    from .engine.compiler import TARGETS, compile_bundle
    from .engine.driver import local_target
    from .engine.tensorrt import installed_library

    found = find_bundle(bundle)
    if output is not None:
        found = copy_bundle(found, output)
    local = local_target()
    targets = target.split(",") if target else [local] if local else TARGETS
    with _interruptible("no engine was written"), _progress(hidden=as_json) as progress:
        task = progress.add_task(
            _plain(found.manifest.name), total=len(found.manifest.graphs) * len(set(targets)), note=""
        )
        engines = compile_bundle(
            found,
            precision=precision,  # type: ignore[arg-type]  # checked there
            shapes=_shapes(shapes or []),
            targets=targets,
            library=library or installed_library(),  # type: ignore[arg-type]
            refit=refit,
            on_built=lambda engine: progress.update(task, advance=1, note=engine.file),
        )
    if as_json:
        out.print_json(json.dumps([engine.model_dump() for engine in engines]))
        return
    for engine in engines:
        out.print(f"[bold]{_plain(found.folder / engine.file)}[/]", soft_wrap=True)


def _shapes(items: list[str]) -> dict[str, tuple[int, int, int]]:
    """Read MIN/USUAL/MAX of frames, WIDTHxHEIGHT each, and AXIS=MIN/USUAL/MAX."""
    shapes: dict[str, tuple[int, int, int]] = {}
    for item in items:
        axis, equals, value = item.rpartition("=")
        parts = value.split("/")
        try:
            least, usual, most = parts * 3 if len(parts) == 1 else parts
            if bool(equals) != bool(axis):
                raise ValueError
            if axis:
                shapes[axis] = int(least), int(usual), int(most)
            else:
                shapes["width"], shapes["height"] = zip(_size(least), _size(usual), _size(most), strict=True)
        except (ValueError, RequestError):
            raise RequestError(
                f"'{item}' is no range of shapes: write least, usual and largest, as in 64x64/640x360/1280x720 or"
                " batch=1/1/4."
            ) from None
    return shapes


def _bundle_facts(bundle: Any) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "network": manifest.architecture.name,
        "space": str(manifest.space),
        "time": str(manifest.time),
        "window": manifest.window.model_dump(),
        "flows": [flow.model_dump() for flow in manifest.flows],
        "bytes": sum((bundle.folder / graph.file).stat().st_size for graph in manifest.graphs),
        "licence": manifest.licence,
        "folder": str(bundle.folder),
        "fingerprint": bundle.fingerprint,
        "halo_px": manifest.halo_px,
        "engines": [engine.model_dump() for engine in manifest.engines],
        "training": manifest.training,
        "scores": manifest.scores,
    }


@app.command()
def info(
    target: Annotated[str, typer.Argument(metavar="BUNDLE|VIDEO", help="A bundle (name or folder), or a video.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Say what a bundle or a video is."""
    from .engine.bundle import MANIFEST, find_bundle, shipped_bundles

    if target in shipped_bundles() or (Path(target) / MANIFEST).exists():
        facts = _bundle_facts(find_bundle(target))
    else:
        from .engine.probe import probe

        facts = probe(target).as_dict()
    if as_json:
        out.print_json(json.dumps(facts, default=str))
        return
    table = Table(show_header=False, box=None)
    for key, value in facts.items():
        shown = json.dumps(value, default=str) if isinstance(value, (dict, list, tuple)) else value
        table.add_row(f"[bold]{key}[/]", _plain(shown))
    out.print(table)


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


@app.command()
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
            entry, changes = find_network(network), _pairs(config or [])
            trained, training = (
                load_weights(entry, weights, changes) if weights else random_weights(configured(entry, changes))
            )
        with _user_errors(json.JSONDecodeError):
            judged = json.loads(scores.read_text()) if scores else {}
        kept = {key: judged[key] for key in ("protocol", "mean", "gain_db") if key in judged}
        folder = export_bundle(entry, trained, output, training, kept, overwrite)
    out.print(f"[bold]{_plain(folder)}[/]", soft_wrap=True)


@app.command()
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
    device: Annotated[str, typer.Option(help="cpu or cuda:0.")] = "cpu",
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress bar.")] = False,
) -> None:
    """Train a network on a folder of clips; a run that was stopped goes on where it stood."""
    with _training_extra():
        import torch

        from .training.checkpoints import load_weights, read_state_dict
        from .training.data import Sampling
        from .training.losses import PENALTY_WEIGHT, MotionConsistency, Perceptual
        from .training.networks import configured, find_network
        from .training.trainer import Schedule, Trainer

        with _user_errors(KeyError, FileNotFoundError, ValueError):
            entry = configured(find_network(network), _pairs(config or []))
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
            trainer = Trainer(
                built, asdict(entry.config), schedule, sampling, run, device, _flow_of_pictures, penalties
            )
            if trainer.step:
                err.print(f"Going on from step {trainer.step} of {_plain(run)}.")
            with (
                _interruptible("the same command goes on from the last checkpoint"),
                _progress(no_progress) as progress,
            ):
                task = progress.add_task(f"train {network}", total=steps, completed=trainer.step, note="")
                scores = trainer.fit(
                    data,
                    validation,
                    cache,
                    lambda step, loss: progress.update(task, completed=step, note=f"loss {loss:.4f}"),
                )
    out.print(f"[bold]{_plain(run / 'weights.pt')}[/]", soft_wrap=True)
    for name, value in scores.items():
        out.print(f"  {name} {value:.3f} dB")


def _flow_of_pictures(first: Any, second: Any, method: str) -> Any:
    """Optical flow as the engine has it, of two pictures as training has them, (h, w, 3) uint8 -> (2, h, w)."""
    import numpy as np

    from .engine.flow import optical_flow

    first, second = (picture.transpose(2, 0, 1) / np.float32(255) for picture in (first, second))
    return optical_flow(first, second, method)


@app.command()
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
        with _progress(no_progress) as progress:
            found = find_clips(*clips)
            task = progress.add_task("", total=None, note="frames")
            scores = run(
                found,
                upscaled,
                protocol,
                lambda clip: progress.update(task, description=_plain(clip.name)),
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
