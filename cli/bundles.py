"""The commands that list, install, pack and compile bundles."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..engine.contract.errors import BundleError, RequestError
from .records import refuse_without
from .terminal import complain, headline, interruptible, new_table, out, plain, progress_bar

if TYPE_CHECKING:
    from ..engine.contract.bundle import Bundle


def models(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the bundles that have a name: those in this package, and the installed ones."""
    from ..engine.contract.bundle import Bundle, named_bundles

    listed: dict[str, dict[str, Any]] = {}
    for name, folder in named_bundles().items():
        try:
            listed[name] = bundle_facts(Bundle.load(folder))
        except BundleError as error:  # an installed bundle that is damaged, or of a later version
            listed[name] = {"error": str(error)}
    errors = [facts["error"] for facts in listed.values() if "error" in facts]
    if as_json:
        out.print_json(json.dumps(listed))
    else:
        table = new_table("name", "network", "space", "time", "size", "licence")
        for name, facts in listed.items():
            if "error" not in facts:
                size = f"{facts['bytes'] / 1e6:.1f} MB"
                row = (name, facts["network"], facts["space"], facts["time"], size, facts["licence"])
                table.add_row(*map(plain, row))
        out.print(table)
        for sentence in errors:
            complain(sentence)
    if errors:
        raise typer.Exit(1)


def install(
    archives: Annotated[list[Path], typer.Argument(metavar="ARCHIVE...", help="Zip files that 'stvsr pack' wrote.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace bundles of the same name.")] = False,
) -> None:
    """Install bundles for this user, who can then name them as those in the package."""
    from ..engine.contract.archive import install as install_archive

    for archive in archives:
        for bundle in install_archive(archive, overwrite):
            out.print(f"{plain(bundle.folder.name)} -> {plain(bundle.folder)}", soft_wrap=True)


def pack(
    bundles: Annotated[list[str], typer.Argument(metavar="BUNDLE...", help="Bundles, by name or folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The zip file.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write bundles to an archive for 'stvsr install'; engines are left out."""
    from ..engine.contract.archive import pack as pack_bundles
    from ..engine.contract.bundle import find_bundle

    path = pack_bundles([find_bundle(name) for name in bundles], output, overwrite)
    out.print(f"{plain(path)}, {path.stat().st_size / 1e6:.1f} MB", soft_wrap=True)


def bundle_facts(bundle: "Bundle") -> dict[str, Any]:
    """Return what a bundle states about itself, as JSON values by name."""
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
    from ..engine.backends.cuda_driver import local_target
    from ..engine.backends.tensorrt.engines import TARGETS, compile_bundle
    from ..engine.backends.tensorrt.library import installed_library
    from ..engine.contract.bundle import copy_bundle, find_bundle, new_bundle

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
    from ..engine.pipeline.quantities import target_size

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
                sizes = [target_size(part, 1920, 1080) for part in (least, usual, most)]
                shapes["width"], shapes["height"] = zip(*sizes, strict=True)
        except (ValueError, RequestError):
            raise RequestError(
                f"'{item}' is not a range of shapes: write the least, usual and largest size, as in"
                " 64x64/640x360/1280x720 or batch=1/1/4."
            ) from None
    return shapes
