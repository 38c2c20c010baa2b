"""The command that compares videos or pictures on one page."""

import json
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..engine.contract.errors import RequestError
from ..engine.contract.figures import FIGURES
from .metrics import MetricsOption, find_metrics
from .options import InputFpsOption
from .terminal import headline, interruptible, new_table, out, plain, progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.progress import Progress

    from ..engine.compare.page import ComparisonPage
    from ..engine.contract.further_metrics import FurtherMetric
    from ..engine.media.frame import FrameReader


def compare(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [TRUTH]",
            help="Two videos, pictures or folders of images; a third one is the truth, against which both are scored.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="PAGE", help="The page, a file that ends in .html.")
    ],
    start: Annotated[
        str | None,
        typer.Option(help="Compare from this time on, in seconds or as 1:02.", show_default="the beginning"),
    ] = None,
    frame_count: Annotated[
        int, typer.Option("--frames", help="Compare at most so many frames, up to 300.", min=1, max=300)
    ] = 300,
    input_fps: InputFpsOption = None,
    metrics: MetricsOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing page.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the mean scores as JSON.")] = False,
) -> None:
    """Compare videos or pictures on one page: a slider, a temporal profile, differences, PSNR and SSIM over time."""
    from ..engine.compare.document import check_page
    from ..engine.media.reader import open_reader
    from ..engine.pipeline.quantities import read_rate, read_seconds

    if len(sources) not in (2, 3):
        raise RequestError(f"Name two videos, or two and the truth, and not {len(sources)}.")
    check_page(output, overwrite)
    further = find_metrics(metrics)
    rate = None if input_fps is None else read_rate(input_fps)
    low = Fraction(0) if start is None else read_seconds(start)
    if rate is not None and not any(map(_is_folder, sources)):
        raise RequestError("--input-fps is for folders of images, and there is none here: leave it out.")
    if low and all(map(_is_picture, sources)):
        raise RequestError("--start is a time, and pictures have none: leave it out.")
    with ExitStack() as opened:
        opened.enter_context(interruptible("nothing was written"))
        readers = [opened.enter_context(_open(source, rate, low, open_reader)) for source in sources]
        progress = opened.enter_context(progress_bar(no_progress or as_json))
        page = fill_page(readers, names_of(sources), "Comparison", frame_count, progress, further)
        size = page.write(output, overwrite=overwrite)
    print_page(page, output, size, as_json)


def _open(source: str, rate: Fraction | None, start: Fraction, open_reader: Any) -> "FrameReader":
    """Open a part of a video, or images."""
    from ..engine.media.options import Part, ReadOptions

    part = Part(start, None, None, Fraction(1)) if start and not _is_picture(source) else None
    of_folder = rate if _is_folder(source) else None
    reader: FrameReader = open_reader(source, fps=of_folder, options=ReadOptions("auto"), part=part)
    return reader


def _is_picture(source: str) -> bool:
    """Return whether a source is a single image."""
    from ..engine.media.image_files import is_images

    return Path(source).is_file() and is_images(source)


def _is_folder(source: str) -> bool:
    """Return whether a source is a folder or a pattern of images."""
    from ..engine.media.image_files import is_images

    return is_images(source) and not Path(source).is_file()


def names_of(sources: "Sequence[str]") -> list[str]:
    """Return short names of files, or their paths where those are the same."""
    names = [Path(source).name or source for source in sources]
    return names if len(set(names)) == len(names) else list(sources)


def fill_page(
    readers: "Sequence[FrameReader]",
    names: "Sequence[str]",
    title: str,
    most: int,
    progress: "Progress",
    metrics: "Sequence[FurtherMetric]" = (),
) -> "ComparisonPage":
    """Compare videos in step, and return the page with at most so many frames."""
    from ..engine.compare.in_step import fastest, frames_in_step, largest
    from ..engine.compare.page import ComparisonPage, Side

    driver = fastest(readers).info
    count = min(most, driver.frames or most)
    sides = [Side(name, _detail(reader)) for name, reader in zip(names, readers, strict=True)]
    page = ComparisonPage(sides, driver.rate, count, title, largest(readers).sample_aspect_ratio, metrics)
    task = progress.add_task("compare", total=count, note="frames")
    for time, frames in frames_in_step(readers):
        page.add(time, frames)
        progress.advance(task)
        if page.is_full:
            break
    return page


def _detail(reader: "FrameReader") -> str:
    info = reader.info
    rate = "" if info.frames == 1 else f", {float(info.rate):.5g} fps"
    return f"{info.width} × {info.height}{rate}, {info.codec}"


def print_page(page: "ComparisonPage", output: Path, size: int, as_json: bool) -> None:
    """Print the mean scores of a page that was written."""
    means = page.means()
    if as_json:
        out.print_json(json.dumps({"output": str(output), "bytes": size, "scores": means}))
        return
    headline(output, f"  {size / 1e6:.1f} MB")
    shown = {name: figure for name, figure in FIGURES.items() if name in means[0]}
    table = new_table("", "against", "frames", *(figure.title for figure in shown.values()))
    for row in means:
        level = "equal" if row["psnr_y_db"] is None else ""
        cells = ("" if row[name] is None else f"{row[name]:.{figure.digits}f}" for name, figure in shown.items())
        first, *others = cells
        table.add_row(plain(row["name"]), plain(row["against"]), str(row["frames"]), first or level, *others)
    out.print(table)
