"""The command that measures bundles on clips: `evaluate`."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..engine.contract.errors import MediaError, RequestError
from .judging import common_protocol, judge
from .metrics import MetricsOption, find_metrics
from .options import BackendOptions, PresetOption
from .outputs import check_json, write_json
from .records import record_options
from .scores import print_scores, write_scores_page
from .terminal import complain, out, plain, progress_bar, training_extra

if TYPE_CHECKING:
    import numpy as np

    from ..engine.compare.page import ComparisonPage
    from ..engine.contract.further_metrics import FurtherMetric
    from ..training.evaluation import OnFrames


@record_options
def evaluate(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="BUNDLE... CLIP...",
            help="Bundles (names or folders) or chains TEMPORAL+SPATIAL; then clips, folders of PNG images, or folders"
            " of both.",
        ),
    ],
    backend: BackendOptions,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write the scores to this JSON file.", show_default="none"),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="PAGE",
            help="Write a page: of one bundle and one clip their frames beside bicubic resizing, else the scores.",
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
    preset: PresetOption = "fast",
    metrics: MetricsOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Measure bundles on clips: PSNR (dB) and SSIM on luma, at input times and between, beside bicubic."""
    from ..engine.compare.document import check_page
    from ..engine.contract.bundle import find_bundles, short_names
    from ..engine.pipeline.inference import Inference
    from ..engine.pipeline.plan import check_flow

    if output is not None:
        check_json(output, "the scores", overwrite=overwrite)
    if page is not None:
        check_page(page, overwrite=overwrite)
    models, clips = split_sources(sources)
    further = find_metrics(metrics)
    bundles = {name: find_bundles(model) for name, model in short_names(models).items()}
    for one in bundles.values():
        check_flow(one, flow)
    with training_extra():
        from ..training.clips import find_clips

        found = find_clips(*clips)
        protocol = common_protocol(list(bundles.values()), scale, factor, crf)
        of_frames = page is not None and len(found) == len(bundles) == 1
        comparison = _begin_page(found[0], models[0], further) if of_frames else None
        with progress_bar(no_progress or as_json) as progress:
            task = progress.add_task("", total=None, note="frames")
            judged = judge(
                bundles,
                found,
                protocol,
                backend.record(),
                Inference(flow=flow, preset=preset),
                further,
                on_clip=lambda name, clip: progress.update(task, description=plain(f"{name}: {clip.name}")),
                on_frame=lambda: progress.advance(task),
                on_frames=None if comparison is None else _add_to_page(comparison),
            )
    if output is not None:
        write_json(output, judged.record())
    if comparison is not None and page is not None:
        comparison.write(page, overwrite=overwrite)
    elif page is not None:
        write_scores_page(page, judged.scores, judged.differences)
    if as_json:
        out.print_json(json.dumps(judged.record()))
    else:
        print_scores(judged.scores, judged.differences)
    if errors := judged.errors():
        for sentence in errors:
            complain(sentence)
        raise typer.Exit(1)


def split_sources(sources: "Sequence[str]") -> tuple[list[str], list[Path]]:
    """Return the bundles and the clips of a command; the first word is a bundle. Raises RequestError, MediaError."""
    from ..engine.contract.bundle import find_bundles, is_bundle

    first, *others = sources
    find_bundles(first)  # raises for a clip in its position
    bundles = [first, *(source for source in others if is_bundle(source))]
    clips = [Path(source) for source in others if source not in bundles]
    for clip in clips:
        if not clip.suffix and not clip.exists():
            raise MediaError(
                f"There is no bundle and no clip '{clip}': see 'stvsr models', or name a file or a folder."
            )
    if not clips:
        raise RequestError("There is no clip to judge by: name clips after the bundles.")
    return bundles, clips


def _begin_page(clip: Path, bundle: str, metrics: "Sequence[FurtherMetric]") -> "ComparisonPage":
    """Return the page on which the frames of a clip will be."""
    from ..engine.compare.page import MOST_FRAMES, ComparisonPage, Side
    from ..engine.media.reader import describe

    rate = Fraction(25) if clip.is_dir() else Fraction(describe(clip)["rate"])
    sides = [Side("bicubic", "blended in time"), Side(bundle), Side(clip.name, "the truth")]
    title = f"Evaluation of {bundle} on {clip.name}"
    return ComparisonPage(sides, rate, MOST_FRAMES, title, metrics=metrics)


def _add_to_page(page: "ComparisonPage") -> "OnFrames":
    """Return a function that adds judged frames to a page, as many as it takes."""

    def add(index: int, frames: "Sequence[np.ndarray]") -> None:
        if not page.is_full:
            network, blended, _, truth = frames
            page.add(index / page.rate, (blended, network, truth))

    return add
