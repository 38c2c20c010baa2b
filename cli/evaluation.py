"""The command that measures bundles on clips: `evaluate`."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..engine.contract.errors import MediaError, RequestError, StvsrError
from .metrics import MetricsOption, find_metrics
from .options import BackendOptions, PresetOption
from .outputs import check_json, write_json
from .records import record_options
from .scores import print_scores, write_scores_page
from .terminal import complain, out, plain, progress_bar, training_extra

if TYPE_CHECKING:
    import numpy as np
    from rich.progress import Progress, TaskID

    from ..engine.backends.options import Backend
    from ..engine.compare.page import ComparisonPage
    from ..engine.contract.bundle import Bundle
    from ..engine.contract.further_metrics import FurtherMetric
    from ..engine.pipeline.inference import Inference
    from ..training.evaluation import OnFrames, Protocol, UpscaleClip

_TRIAL_PX = 64  # side of the frames for which a bundle is asked what it can do


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
        typer.Option("-o", "--output", help="Write the scores to this JSON file, or replace it.", show_default="none"),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="PAGE",
            help="Write or replace a page: of one bundle and one clip their frames beside bicubic resizing, else the"
            " scores.",
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
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Measure bundles on clips: PSNR (dB) and SSIM on luma, at input times and between, beside bicubic."""
    from ..engine.compare.document import check_page
    from ..engine.contract.bundle import find_bundles, short_names
    from ..engine.pipeline.inference import Inference
    from ..engine.pipeline.plan import check_flow

    if output is not None:
        check_json(output, "the scores", overwrite=True)
    if page is not None:
        check_page(page, overwrite=True)
    models, clips = split_sources(sources)
    further = find_metrics(metrics)
    record = backend.record()
    bundles = {name: find_bundles(model) for name, model in short_names(models).items()}
    for one in bundles.values():
        check_flow(one, flow)
    scores: dict[str, dict[str, Any]] = {}
    failed: dict[str, StvsrError] = {}
    with training_extra():
        from ..training.clips import find_clips
        from ..training.evaluation import differences
        from ..training.evaluation import evaluate as run

        protocol = common_protocol(list(bundles.values()), scale, factor, crf)
        with progress_bar(no_progress or as_json) as progress:
            found = find_clips(*clips)
            of_frames = page is not None and len(found) == len(bundles) == 1
            comparison = _begin_page(found[0], models[0], further) if of_frames else None
            task = progress.add_task("", total=None, note="frames")
            for name, one in bundles.items():
                used = Used()
                try:
                    judged = run(
                        found,
                        upscale_clip(one, record, Inference(flow=flow, preset=preset), used),
                        protocol,
                        partial(_show_clip, progress, task, name),
                        lambda: progress.advance(task),
                        None if comparison is None else _add_to_page(comparison),
                        further,
                    )
                except StvsrError as error:  # of every clip
                    if len(bundles) == 1:
                        raise
                    failed[name] = error
                    continue
                graphs = {b.manifest.name: {graph.role: graph.sha256 for graph in b.manifest.graphs} for b in one}
                scores[name] = {"bundle": name, "graphs_sha256": graphs, "preset": preset, **used.facts(), **judged}
        if failed and not scores:
            raise next(iter(failed.values()))
        first, *others = bundles
        over_first = {
            name: differences(scores[name]["clips"], scores[first]["clips"])
            for name in others
            if first in scores and name in scores
        }
    answer: dict[str, Any] = next(iter(scores.values()))
    if len(bundles) > 1:
        answer = {
            "evaluations": list(scores.values()),
            "differences": {"from": first, "of": over_first},
            "errors": {name: str(error) for name, error in failed.items()},
        }
    if output is not None:
        write_json(output, answer)
    if comparison is not None and page is not None:
        comparison.write(page, overwrite=True)
    elif page is not None:
        write_scores_page(page, scores, over_first)
    if as_json:
        out.print_json(json.dumps(answer))
    else:
        print_scores(scores, over_first)
    errors = [f"{name}: {error}" for name, error in failed.items()]
    errors += [f"{clip}: {error}" for one in scores.values() for clip, error in one["errors"].items()]
    for sentence in dict.fromkeys(errors):
        complain(sentence)
    if errors:
        raise typer.Exit(1)


def _show_clip(progress: "Progress", task: "TaskID", name: str, clip: Path) -> None:
    progress.update(task, description=plain(f"{name}: {clip.name}"))


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


def common_protocol(
    bundles: "Sequence[tuple[Bundle, ...]]", scale: int | None, factor: int | None, crf: int | None
) -> "Protocol":
    """Return the degradation by which all bundles are judged: with the first default factors that all of them have.

    Raises RequestError if there are none.
    """
    from ..engine.pipeline.plan import abilities, default_factor, default_scale, plan_passes
    from ..training.evaluation import Protocol

    exposures = {any(b.manifest.window.kind == "doubled" for b in one) for one in bundles}
    if len(exposures) > 1:
        raise RequestError(
            "Some of these bundles take frames that are means over time, as slower cameras record them, and others do"
            " not, so that one clip cannot judge both: evaluate them apart."
        )
    scales = [scale] if scale is not None else list(dict.fromkeys(round(default_scale(one)) for one in bundles))
    factors = [factor] if factor is not None else list(dict.fromkeys(default_factor(one) for one in bundles))
    exposure = exposures.pop()

    def serves(one: "tuple[Bundle, ...]", protocol: "Protocol") -> bool:
        side = _TRIAL_PX * protocol.scale
        try:
            plan_passes(one, (_TRIAL_PX, _TRIAL_PX), (side, side), protocol.factor)
        except RequestError:
            return False
        return True

    protocols = [Protocol(s, f, exposure, crf) for s, f in product(scales, factors)]
    if len(bundles) == 1:
        return protocols[0]
    for protocol in protocols:
        if all(serves(one, protocol) for one in bundles):
            return protocol
    able = "; ".join(dict.fromkeys(abilities(bundle) for one in bundles for bundle in one))
    raise RequestError(
        f"These bundles cannot be judged together ({able}): choose a scale (-s) and a time factor (-t) that all of them"
        " have, or evaluate them apart."
    )


@dataclass
class Used:
    """The devices and precisions that an evaluation has used."""

    devices: set[str] = field(default_factory=set)
    backends: set[str] = field(default_factory=set)
    precisions: set[str] = field(default_factory=set)

    def facts(self) -> dict[str, str]:
        """Return them as text."""
        named = {"device": self.devices, "backend": self.backends, "precision": self.precisions}
        return {name: ", ".join(sorted(values)) for name, values in named.items()}


def upscale_clip(
    bundles: "tuple[Bundle, ...]", backend: "Backend", inference: "Inference", used: Used
) -> "UpscaleClip":
    """Return the function that evaluation judges; it adds its device and precision to `used`."""
    from ..engine.contract.picture import to_float
    from ..engine.contract.windows import one_scene
    from ..engine.pipeline.chain import Chain
    from ..engine.pipeline.plan import plan_passes

    def upscale(frames: "Iterable[np.ndarray]", factor: int, size: tuple[int, int]) -> "Iterator[np.ndarray]":
        first = next(stream := iter(frames))
        passes = plan_passes(bundles, first.shape[1:], size, factor)
        times = tuple(Fraction(part, factor) for part in range(factor))
        with Chain(passes, backend, inference) as opened:
            used.devices.add(opened.device)
            used.backends.add(opened.backend)
            for frame in opened.frames(one_scene(chain([first], stream), times)):
                yield to_float(frame)
            used.precisions.add(opened.precision)  # which may change on the way

    return upscale


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
