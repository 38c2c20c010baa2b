"""The command line: ``stvsr upscale | models | info | compile | export | train | adapt | evaluate``."""

import json
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from . import __version__
from .cli_adaptation import adapt as adapt_command
from .cli_adaptation import adapted
from .cli_training import evaluate, export, train
from .engine.contract.errors import RequestError, StvsrError
from .terminal import err, fail, interruptible, out, plain, progress_bar, read_pairs, read_rate, read_size

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from .engine.pipeline.run import Progress, Report

app = typer.Typer(
    help="Upscale video in space and time.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)

_SHIPPED = "videoinr-s"


def main() -> None:
    """Runs the command line; an error that the user can mend is one line and exit code 1."""
    try:
        app()
    except StvsrError as error:
        fail(plain(error))
    except OSError as error:
        fail(f"{plain(error.filename or 'The system')} cannot be used: {plain(error.strerror or error)}.")


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"stvsr {__version__}")
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    """Upscale video in space and time."""


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
    adapt: Annotated[bool, typer.Option("--adapt", help="Adapt the network to the video first.")] = False,
    adapt_per: Annotated[str, typer.Option(help="What to adapt to: video, or each scene.")] = "video",
    adapt_seconds: Annotated[float | None, typer.Option(help="Seconds to learn, each time.  [default: 10]")] = None,
    adapt_steps: Annotated[int | None, typer.Option(help="Steps to learn, each time.", min=1)] = None,
    method: Annotated[
        str | None, typer.Option(help="Of adaptation, see stvsr adapt.  [default: by the network]")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="Of distillation: the larger network's bundle.")] = None,
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
    from .engine.pipeline.request import UpscaleRequest
    from .engine.pipeline.run import upscale as run

    given: dict[str, Any] = {} if scene_threshold is None else {"scene_threshold": scene_threshold}
    request = UpscaleRequest(
        input=source,
        output=output,
        scale=scale,
        size=read_size(size) if size else None,
        time_factor=factor,
        fps=read_rate(fps) if fps else None,
        model=model,
        flow=flow,
        backend=backend,
        device=device,
        precision=precision,  # type: ignore[arg-type]  # checked when graphs are opened
        library=library,  # type: ignore[arg-type]
        tile=tile,
        codec=codec,
        crf=crf,
        encoder_options=read_pairs(encoder_option or []),
        pix_fmt=pix_fmt,
        overwrite=overwrite,
        input_fps=read_rate(input_fps) if input_fps else None,
        threads=threads,
        **given,
    )
    if not adapt and (adapt_seconds, adapt_steps, method, teacher) != (None,) * 4:
        raise RequestError("--adapt-seconds, --adapt-steps, --method and --teacher belong to --adapt: add it.")
    with (
        interruptible("nothing was written"),
        progress_bar(no_progress or as_json) as progress,
        tempfile.TemporaryDirectory(prefix="stvsr-") as folder,
    ):
        task = progress.add_task(plain(source.name), total=None, note="")
        adaptation = None
        if adapt:
            adaptation = adapted(
                request, adapt_per, method, adapt_steps, adapt_seconds, teacher, Path(folder), progress, task
            )
        report = run(request, _frames_on(progress, task, plain(source.name)), adaptation)
    if as_json:
        out.print_json(json.dumps(report.as_dict()))
    else:
        _print_report(report)


def _frames_on(progress: "RichProgress", task: "TaskID", name: str) -> Callable[["Progress"], None]:
    """What shows input frames on a bar: how many, how fast, how long still."""

    def advance(done: "Progress") -> None:
        note = f"{done.frames_out / max(done.seconds, 1e-9):.1f} frames/s out"
        progress.update(task, description=name, completed=done.frames_in, total=done.total_in, note=note)

    return advance


def _print_report(report: "Report") -> None:
    size = "{}x{} -> {}x{}".format(*report.size_in, *report.size_out)
    cuts = f", {len(report.cuts_s)} scene cut{'s' * (len(report.cuts_s) != 1)}" if report.cuts_s else ""
    out.print(f"[bold]{plain(report.output)}[/]", soft_wrap=True)
    out.print(
        f"  {size}, {report.frames_in} -> {report.frames_out} frames{cuts}, {float(Fraction(report.rate_out)):g} fps; "
        f"{report.seconds:.1f} s, {report.fps:.1f} frames/s, {report.bundle} on {report.device}",
        soft_wrap=True,
    )
    for number, record in enumerate(report.adaptation, 1):
        scene = f"Scene {number}: " if len(report.adaptation) > 1 else ""
        out.print(f"  {scene}{plain(record['reason'])} {record['seconds']:.1f} s.", soft_wrap=True)
        if not record["kept"]:
            err.print(f"[yellow]Note:[/] {scene}the original weights served.", soft_wrap=True)
    for warning in report.warnings:
        err.print(f"[yellow]Note:[/] {plain(warning)}", soft_wrap=True)


@app.command()
def models(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the bundles that the package ships."""
    from .engine.contract.bundle import Bundle, shipped_bundles

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
    plugins: Annotated[bool, typer.Option("--plugins", help="Put stvsr's kernels into TensorRT's engines.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is in the new folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the engines as JSON.")] = False,
) -> None:
    """Compile a bundle's graphs into engines, beside them."""
    from .engine.backends.cuda_driver import local_target
    from .engine.backends.tensorrt.builder import installed_library
    from .engine.backends.tensorrt.engines import TARGETS, compile_bundle
    from .engine.contract.bundle import copy_bundle, find_bundle, new_bundle

    found = find_bundle(bundle)
    local = local_target()
    targets = target.split(",") if target else [local] if local else TARGETS
    with (
        interruptible("no engine was written"),
        progress_bar(hidden=as_json) as progress,
        nullcontext() if output is None else new_bundle(output, overwrite) as folder,
    ):
        task = progress.add_task(
            plain(found.manifest.name), total=len(found.manifest.graphs) * len(set(targets)), note=""
        )
        engines = compile_bundle(
            found if folder is None else copy_bundle(found, folder),
            precision=precision,  # type: ignore[arg-type]  # checked there
            shapes=_shapes(shapes or []),
            targets=targets,
            library=library or installed_library(),  # type: ignore[arg-type]
            refit=refit,
            plugins=plugins,
            on_built=lambda engine: progress.update(task, advance=1, note=engine.file),
        )
    if as_json:
        out.print_json(json.dumps([engine.model_dump() for engine in engines]))
        return
    for file in dict.fromkeys(engine.file for engine in engines):
        out.print(f"[bold]{plain((output or found.folder) / file)}[/]", soft_wrap=True)


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
                sizes = [read_size(part) for part in (least, usual, most)]
                shapes["width"], shapes["height"] = zip(*sizes, strict=True)
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
    from .engine.contract.bundle import MANIFEST, find_bundle, shipped_bundles

    if target in shipped_bundles() or (Path(target) / MANIFEST).exists():
        facts = _bundle_facts(find_bundle(target))
    else:
        from .engine.media.probe import probe

        facts = probe(target).as_dict()
    if as_json:
        out.print_json(json.dumps(facts, default=str))
        return
    table = Table(show_header=False, box=None)
    for key, value in facts.items():
        shown = json.dumps(value, default=str) if isinstance(value, (dict, list, tuple)) else value
        table.add_row(f"[bold]{key}[/]", plain(shown))
    out.print(table)


app.command("adapt")(adapt_command)
for _command in (export, train, evaluate):
    app.command()(_command)
