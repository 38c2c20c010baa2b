"""The command line: `stvsr upscale | models | info | compile | ...`, with the commands of the other `cli_*` files."""

import errno
import json
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from . import __version__
from .cli_adaptation import adapt, adapt_scenes
from .cli_batch import batch
from .cli_evaluation import evaluate
from .cli_options import (
    AdaptOptions,
    BackendOptions,
    EncoderOptions,
    FrameOptions,
    SourceOptions,
    record_options,
    refuse_without,
)
from .cli_serving import serve
from .cli_training import export, train
from .cli_triton import triton
from .engine.contract.errors import RequestError, StvsrError
from .engine.contract.interrupts import received
from .engine.contract.shortage import describe_shortage
from .terminal import (
    err,
    fail,
    headline,
    interrupt_number,
    interruptible,
    note,
    out,
    plain,
    progress_bar,
    protect_streams,
    read_size,
)

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from .engine.contract.bundle import Bundle
    from .engine.pipeline.report import Progress, Report


class _Commands(TyperGroup):
    """The commands; a signal in one that says nothing else ends with a sentence and the exit code 128 + the signal."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            err.print("Interrupted: the command did not end.")
            raise typer.Exit(128 + interrupt_number(interrupt)) from None


app = typer.Typer(
    cls=_Commands, help="Upscale video in space and time.", no_args_is_help=True, pretty_exceptions_enable=False
)

# Faults of the environment, not of this program: full or read-only disks, missing permissions, too many files, names.
_ENVIRONMENT = {
    getattr(errno, name, None)  # not every system has each of them
    for name in [
        "EACCES",
        "EDQUOT",
        "EISDIR",
        "EMFILE",
        "ENAMETOOLONG",
        "ENFILE",
        "ENOSPC",
        "ENOTDIR",
        "EPERM",
        "EROFS",
    ]
}


def main() -> None:
    """Run the command line. An error that the user can mend is one line on stderr, with exit code 1."""
    protect_streams()
    try:
        _run()
    except BaseException as error:
        number = received()
        code = error.code if isinstance(error, SystemExit) else None
        if number is None or code == 0 or code == 128 + number:
            raise
        err.print("Interrupted: the command did not end.")  # whatever the interrupt became on its way
        raise SystemExit(128 + number) from None


def _run() -> None:
    try:
        app()
    except StvsrError as error:
        fail(error)
    except Exception as error:
        if (shortage := describe_shortage(error)) is not None:
            fail(shortage)
        if not isinstance(error, OSError) or error.errno not in _ENVIRONMENT:
            raise
        fail(f"{error.filename or 'A file'} cannot be used: {error.strerror}.")


def _version(requested: bool) -> None:
    if requested:
        out.print(f"stvsr {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Upscale video in space and time."""


@app.command()
@record_options
def upscale(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A video, or a folder of PNG images.")],
    frames: FrameOptions,
    reading: SourceOptions,
    encoder: EncoderOptions,
    backend: BackendOptions,
    adaptation: AdaptOptions,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The output video.", show_default="STEM_x4_60fps.mp4 beside INPUT"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Keep finished parts in .NAME.stvsr, from which the same command goes on if it is stopped."
        ),
    ] = False,
    adapt: Annotated[bool, typer.Option("--adapt", help="Adapt the network to the video first.")] = False,
    adapt_per: Annotated[
        str | None, typer.Option(help="Adapt to the video, or to each scene: video or scene.", show_default="video")
    ] = None,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Enlarge a video and raise its frame rate."""
    from .engine.pipeline.request import UpscaleRequest
    from .engine.pipeline.resume import upscale_resumable
    from .engine.pipeline.run import upscale as run

    if adapt and resume:
        raise RequestError("--resume goes without --adapt: adapt a bundle first ('stvsr adapt'), and upscale with it.")
    request = UpscaleRequest(
        input=source,
        output=output,
        backend=backend.record(),
        **encoder.values(),
        **reading.values(),
        **frames.values(),
    )
    if adapt and request.backend.kind == "remote":
        raise RequestError("--adapt changes a network's weights, and a server keeps its own: use another --backend.")
    if not adapt:
        refuse_without("--adapt", {"--adapt-per": adapt_per, **adaptation.given()})
    kept = "finished parts were kept: give the same command again" if resume else "nothing was written"
    with (
        interruptible(kept),
        progress_bar(no_progress or as_json) as progress,
        tempfile.TemporaryDirectory(prefix="stvsr-") if adapt else nullcontext("") as folder,
    ):
        task = progress.add_task(plain(source.name), total=None, note="")
        adapted = None
        if adapt:
            adapted = adapt_scenes(request, adapt_per or "video", adaptation, Path(folder), progress, task)
        show = _show_frames(progress, task, plain(source.name))
        report = upscale_resumable(request, show) if resume else run(request, show, adapted)
    if as_json:
        out.print_json(json.dumps(report.as_dict()))
    else:
        _print_report(report)


def _show_frames(progress: "RichProgress", task: "TaskID", name: str) -> Callable[["Progress"], None]:
    """Return a function that shows a run's progress on a bar."""

    def advance(done: "Progress") -> None:
        note = f"{done.frames_out / max(done.seconds, 1e-9):.1f} frames/s out"
        progress.update(task, description=name, completed=done.frames_in, total=done.total_in, note=note)

    return advance


def _print_report(report: "Report") -> None:
    size = "{}x{} -> {}x{}".format(*report.size_in, *report.size_out)
    cuts = f", {len(report.cuts_s)} scene cut{'s' * (len(report.cuts_s) != 1)}" if report.cuts_s else ""
    how = "" if report.device == "cpu" else f" ({report.backend}, {report.precision})"
    headline(report.output)
    out.print(
        f"  {size}, {report.frames_in} -> {report.frames_out} frames{cuts}, {float(Fraction(report.rate_out)):g} fps; "
        f"{report.seconds:.1f} s, {report.fps:.1f} frames/s, {plain(report.bundle)} on {report.device}{how}",
        soft_wrap=True,
    )
    if report.repeated_frames or report.still_frames:
        still = f"; {report.still_frames} frames of still pictures stay still" if report.still_frames else ""
        out.print(f"  {report.repeated_frames} repeated frames were interpolated over{still}.", soft_wrap=True)
    for number, record in enumerate(report.adaptation, 1):
        scene = f"Scene {number}: " if len(report.adaptation) > 1 else ""
        out.print(f"  {scene}{plain(record['reason'])} {record['seconds']:.1f} s.", soft_wrap=True)
        if not record["kept"]:
            note(f"{scene}the original weights were used.")
    for warning in report.warnings:
        note(warning)


@app.command()
def models(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the bundles that have a name: those in this package, and the installed ones."""
    from .engine.contract.bundle import Bundle, named_bundles

    bundles = {name: Bundle.load(folder) for name, folder in named_bundles().items()}
    if as_json:
        out.print_json(json.dumps({name: _bundle_facts(bundle) for name, bundle in bundles.items()}))
        return
    table = Table("name", "network", "space", "time", "size", "licence", box=None)
    for name, bundle in bundles.items():
        facts = _bundle_facts(bundle)
        size = f"{facts['bytes'] / 1e6:.1f} MB"
        row = (name, facts["network"], facts["space"], facts["time"], size, facts["licence"])
        table.add_row(*map(plain, row))
    out.print(table)


@app.command()
def install(
    archives: Annotated[list[Path], typer.Argument(metavar="ARCHIVE...", help="Zip files that 'stvsr pack' wrote.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace bundles of the same name.")] = False,
) -> None:
    """Install bundles for this user, who can then name them as those in the package."""
    from .engine.contract.archive import install as install_archive

    for archive in archives:
        for bundle in install_archive(archive, overwrite):
            out.print(f"{plain(bundle.folder.name)} -> {plain(bundle.folder)}", soft_wrap=True)


@app.command()
def pack(
    bundles: Annotated[list[str], typer.Argument(metavar="BUNDLE...", help="Bundles, by name or folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The zip file.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write bundles to an archive for 'stvsr install'; engines are left out."""
    from .engine.contract.archive import pack as pack_bundles
    from .engine.contract.bundle import find_bundle

    path = pack_bundles([find_bundle(name) for name in bundles], output, overwrite)
    out.print(f"{plain(path)}, {path.stat().st_size / 1e6:.1f} MB", soft_wrap=True)


@app.command()
def info(
    target: Annotated[
        str | None,
        typer.Argument(metavar="BUNDLE|VIDEO", help="A bundle (name or folder), a video, or a folder of images."),
    ] = None,
    devices: Annotated[
        bool, typer.Option("--devices", help="List the devices of this machine, and what can compute on each.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Describe a bundle, a video, a folder of images, or the devices of this machine."""
    from .engine.contract.bundle import MANIFEST, find_bundle, named_bundles

    if devices == (target is not None):
        raise RequestError("Name one thing to describe: a bundle, a video, or --devices.")
    if target is None:
        _print_devices(as_json)
        return
    if target in named_bundles() or (Path(target) / MANIFEST).exists():
        facts = _bundle_facts(find_bundle(target))
    else:
        from .engine.media.reader import describe

        facts = describe(target)
    if as_json:
        out.print_json(json.dumps(facts, default=str))
        return
    table = Table(show_header=False, box=None)
    for key, value in facts.items():
        text = json.dumps(value, default=str) if isinstance(value, (dict, list, tuple)) else value
        table.add_row(Text(plain(key), "bold"), plain(text))
    out.print(table)


def _print_devices(as_json: bool) -> None:
    """Print every backend on every device, the chosen one first."""
    from .engine.backends.choice import describe_device, find_candidates

    candidates = find_candidates()
    chosen = next(candidate for candidate in candidates if candidate.unavailable is None)
    facts = [
        {
            **candidate._asdict(),
            "description": describe_device(candidate.device),
            "available": candidate.unavailable is None,
            "chosen": candidate is chosen,
        }
        for candidate in candidates
    ]
    if as_json:
        out.print_json(json.dumps(facts))
        return
    table = Table("device", "", "backend", "", box=None)
    for candidate, fact in zip(candidates, facts, strict=True):
        state = "chosen by --backend auto" if fact["chosen"] else plain(candidate.unavailable or "available")
        table.add_row(candidate.device, plain(fact["description"]), candidate.title, state)
    out.print(table)


def _bundle_facts(bundle: "Bundle") -> dict[str, Any]:
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
        "precisions": {name: loss.model_dump() for name, loss in manifest.precisions.items()},
        "training": manifest.training,
        "scores": manifest.scores,
    }


@app.command("compile")
def compile_(
    bundle: Annotated[str, typer.Argument(help="A bundle's name or folder.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="A new folder for the bundle.", show_default="the bundle's own folder"),
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, tf32 or fp16.")] = "fp32",
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MIN/USUAL/MAX",
            help="Frame sizes in pixels, as 64x64/640x360/1280x720, or another axis, as batch=1/1/4; a single size is"
            " fixed. Repeatable.",
            show_default="the network's usual sizes",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Compute capabilities, as sm89,sm120.", show_default="this machine's GPU, else the usual ones"
        ),
    ] = None,
    library: Annotated[
        str | None, typer.Option(help="tensorrt or tensorrt-rtx.", show_default="the installed one")
    ] = None,
    refit: Annotated[bool, typer.Option("--refit", help="Allow weights to be replaced in open engines.")] = False,
    plugins: Annotated[
        bool, typer.Option("--plugins", help="Include stvsr's kernels in TensorRT's engines as plugins.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing bundle in the folder of --output.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the engines as JSON.")] = False,
) -> None:
    """Compile a bundle's graphs into TensorRT engines, stored in the bundle."""
    from .engine.backends.cuda_driver import local_target
    from .engine.backends.tensorrt.engines import TARGETS, compile_bundle
    from .engine.backends.tensorrt.library import installed_library
    from .engine.contract.bundle import copy_bundle, find_bundle, new_bundle

    if output is None:
        refuse_without("--output", {"--overwrite": overwrite})
    original = find_bundle(bundle)
    local = local_target()
    targets = target.split(",") if target else [local] if local else TARGETS
    with (
        interruptible("no engine was written"),
        progress_bar(hidden=as_json) as progress,
        nullcontext() if output is None else new_bundle(output, overwrite) as folder,
    ):
        total = len(original.manifest.graphs) * len(set(targets))
        task = progress.add_task(plain(original.manifest.name), total=total, note="")
        engines = compile_bundle(
            original if folder is None else copy_bundle(original, folder),
            precision=precision,  # type: ignore[arg-type]  # validated by compile_bundle
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
        headline((output or original.folder) / file)


def _shapes(items: list[str]) -> dict[str, tuple[int, int, int]]:
    """Parse ranges of sizes: MIN/USUAL/MAX of frames, WIDTHxHEIGHT each, and AXIS=MIN/USUAL/MAX of other axes."""
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
                f"'{item}' is not a range of shapes: write the least, usual and largest size, as in"
                " 64x64/640x360/1280x720 or batch=1/1/4."
            ) from None
    return shapes


for _command in (batch, serve, triton, adapt, export, train, evaluate):
    app.command()(_command)
