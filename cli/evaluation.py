"""The command that measures a bundle on clips: `evaluate`."""

import json
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ..engine.contract.errors import RequestError
from .options import BackendOptions, record_options
from .terminal import complain, out, plain, progress_bar, training_extra

if TYPE_CHECKING:
    import numpy as np

    from ..engine.backends.options import Backend
    from ..engine.compare.page import ComparisonPage
    from ..engine.contract.bundle import Bundle
    from ..training.evaluation import OnFrames, UpscaleClip

_WHEN = {"at": "at input times", "between": "between input times"}


@record_options
def evaluate(
    bundle: Annotated[str, typer.Argument(help="A bundle (name or folder), or a chain TEMPORAL+SPATIAL.")],
    clips: Annotated[list[Path], typer.Argument(help="Clips, folders of PNG images, or folders of both.")],
    backend: BackendOptions,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the scores to this JSON file.", show_default="none")
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="PAGE",
            help="Write a page that compares bicubic resizing, the bundle and the clip; of one clip.",
            show_default="none",
        ),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option("-s", "--scale", help="Spatial factor.", min=1, show_default="4, or the bundle's own"),
    ] = None,
    factor: Annotated[
        int | None,
        typer.Option(
            "-t",
            "--factor",
            help="The network sees every FACTOR-th frame and makes those between.",
            min=1,
            show_default="2, or the bundle's own",
        ),
    ] = None,
    crf: Annotated[
        int | None,
        typer.Option(
            help="Compress the small frames by x264 at this constant rate factor, 0 to 51.",
            min=0,
            max=51,
            show_default="no compression",
        ),
    ] = None,
    flow: Annotated[
        str | None,
        typer.Option(help="Optical flow for networks that take it: farneback or dis.", show_default="the bundle's own"),
    ] = None,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Measure a bundle on clips: PSNR (dB) and SSIM on luma, at input times and between, beside bicubic."""
    from ..engine.compare.page import check_page
    from ..engine.contract.bundle import find_bundles
    from ..engine.pipeline.plan import check_flow, default_factor, default_scale

    if output and not output.parent.is_dir():
        raise RequestError(f"The folder {output.parent} for the scores does not exist: create it first.")
    if page is not None:
        check_page(page, overwrite=True)
    record, bundles = backend.record(), find_bundles(bundle)
    check_flow(bundles, flow)
    with training_extra():
        from ..training.clips import find_clips
        from ..training.evaluation import Protocol
        from ..training.evaluation import evaluate as run

        devices: set[str] = set()
        protocol = Protocol(
            scale=round(default_scale(bundles)) if scale is None else scale,
            factor=default_factor(bundles) if factor is None else factor,
            exposure=any(b.manifest.window.kind == "doubled" for b in bundles),
            crf=crf,
        )
        with progress_bar(no_progress) as progress:
            found = find_clips(*clips)
            if page is not None and len(found) != 1:
                raise RequestError(f"--page is of one clip, and {len(found)} were found: name one.")
            comparison = None if page is None else _begin_page(found[0], bundle)
            task = progress.add_task("", total=None, note="frames")
            scores = run(
                found,
                upscale_clip(bundles, record, flow, devices),
                protocol,
                lambda clip: progress.update(task, description=plain(clip.name)),
                lambda: progress.advance(task),
                None if comparison is None else _add_to_page(comparison),
            )
    graphs = {b.manifest.name: {graph.role: graph.sha256 for graph in b.manifest.graphs} for b in bundles}
    scores = {"bundle": "+".join(graphs), "graphs_sha256": graphs, "device": ", ".join(devices), **scores}
    if output:
        output.write_text(json.dumps(scores, indent=1) + "\n")
    if page is not None and comparison is not None:
        comparison.write(page, overwrite=True)
    if as_json:
        out.print_json(json.dumps(scores))
    else:
        _print_scores(scores)
    if scores["errors"]:
        for name, error in scores["errors"].items():
            complain(f"{name}: {error}")
        raise typer.Exit(1)


def upscale_clip(
    bundles: "tuple[Bundle, ...]", backend: "Backend", flow: str | None, devices: set[str]
) -> "UpscaleClip":
    """Return the function that evaluation judges; it adds the name of its device to `devices`."""
    from ..engine.contract.picture import to_float
    from ..engine.contract.windows import one_scene
    from ..engine.pipeline.chain import Chain
    from ..engine.pipeline.plan import plan_passes

    def upscale(frames: "Iterable[np.ndarray]", factor: int, size: tuple[int, int]) -> "Iterator[np.ndarray]":
        first = next(stream := iter(frames))
        passes = plan_passes(bundles, first.shape[1:], size, factor)
        times = tuple(Fraction(part, factor) for part in range(factor))
        with Chain(passes, backend, flow=flow) as opened:
            devices.add(opened.device)
            for frame in opened.frames(one_scene(chain([first], stream), times)):
                yield to_float(frame)

    return upscale


def _begin_page(clip: Path, bundle: str) -> "ComparisonPage":
    """Return the page on which the frames of a clip will be."""
    from ..engine.compare.page import MOST_FRAMES, ComparisonPage, Side
    from ..engine.media.reader import describe

    rate = Fraction(25) if clip.is_dir() else Fraction(describe(clip)["rate"])
    sides = [Side("bicubic", "blended in time"), Side(bundle), Side(clip.name, "the truth")]
    return ComparisonPage(sides, rate, MOST_FRAMES, f"Evaluation of {bundle} on {clip.name}")


def _add_to_page(page: "ComparisonPage") -> "OnFrames":
    """Return a function that adds judged frames to a page, as many as it takes."""

    def add(index: int, frames: "Sequence[np.ndarray]") -> None:
        if not page.is_full:
            network, blended, _, truth = frames
            page.add(index / page.rate, (blended, network, truth))

    return add


def _print_scores(scores: dict[str, Any]) -> None:
    from ..training.evaluation import METHODS

    table = Table("clip", "frames", *(f"{m} PSNR dB / SSIM" for m in METHODS), box=None)
    for when, description in _WHEN.items():
        for name, clip in [*scores["clips"].items(), ("mean", scores["mean"])]:
            if figures := clip.get(when):
                columns = (f"{figures[m]['psnr_y_db']:.2f} / {figures[m]['ssim_y']:.4f}" for m in METHODS)
                table.add_row(name, description, *columns)
    out.print(table)
    for when, gain in scores["gain_db"].items():
        out.print(f"{gain:+.2f} dB over {METHODS[1]} {_WHEN[when]}")
