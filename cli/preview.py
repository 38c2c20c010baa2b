"""The preview of `upscale`: a few seconds of the input beside the output, on a page."""

import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.contract.errors import RequestError
from .compare import fill_page, print_page
from .progress import RunEvents, show_frames
from .terminal import interruptible, note, plain, progress_bar

if TYPE_CHECKING:
    from ..engine.pipeline.request import UpscaleRequest

_SECONDS = 5


def write_preview(request: "UpscaleRequest", page: Path, hides_bar: bool, as_json: bool) -> None:
    """Upscale the seconds of a request's input in which most moves, and write a page of them."""
    from ..engine.compare.document import check_page
    from ..engine.compare.page import MOST_FRAMES
    from ..engine.media.options import ReadOptions
    from ..engine.media.pipes import is_pipe
    from ..engine.media.reader import open_reader
    from ..engine.pipeline.run import open_input, upscale

    if is_pipe(request.input):
        raise RequestError("A preview reads the video twice, and a pipe can be read once: save it to a file first.")
    check_page(page, request.overwrite)
    name = Path(request.input).name
    with (
        interruptible("nothing was written"),
        progress_bar(hides_bar) as bar,
        tempfile.TemporaryDirectory(prefix="stvsr-") as folder,
    ):
        task = bar.add_task(plain(name), total=None, note="looking for motion")
        part, title = _liveliest(request, name, Path(folder))
        events = RunEvents(replace(part, output=page))
        events.start("upscale")

        def warn(warning: str) -> None:
            events.warn(warning)
            if not as_json:
                note(warning, event=False)

        report = upscale(part, show_frames(bar, task, plain(name), events), on_warning=warn)
        bar.remove_task(task)
        with open_input(part) as before, open_reader(report.output, options=ReadOptions("off")) as after:
            compared = fill_page([before, after], [name, report.bundle], f"Preview of {title}", MOST_FRAMES, bar)
        size = compared.write(page, overwrite=request.overwrite)
        events.finish(replace(report, output=str(page)))
    print_page(compared, page, size, as_json)


def _liveliest(request: "UpscaleRequest", name: str, folder: Path) -> "tuple[UpscaleRequest, str]":
    """Return the request for the part with the most motion, with an output in a folder, and a title of the part.

    A picture is its own part.
    """
    from ..engine.compare.motion import liveliest
    from ..engine.compare.page import MOST_FRAMES
    from ..engine.contract.bundle import find_bundles
    from ..engine.media.image_files import is_images
    from ..engine.pipeline.quantities import read_factor, read_seconds
    from ..engine.pipeline.run import open_input

    if Path(request.input).is_file() and is_images(request.input):
        return replace(request, output=folder / "preview.png"), name
    request = replace(request, output=folder / "preview.mkv")  # which takes what every encoder writes
    slowness = Fraction(1) if request.slowmo is None else read_factor(request.slowmo, "slow motion")
    with open_input(request) as reader:
        rate = request.plan(find_bundles(request.model), reader.info).rate
    with open_input(replace(request, slowmo=None)) as reader:
        low, high = liveliest(reader, min(Fraction(_SECONDS), MOST_FRAMES / (rate * slowness)))
    offset = Fraction(0) if request.start is None else read_seconds(request.start)
    low, high = low + offset, high + offset
    title = f"{name}, {float(low):.2f} s to {float(high):.2f} s"
    return replace(request, start=low, end=high, frames=None), title
