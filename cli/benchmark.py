"""The command that measures what this machine can run: `benchmark`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from rich.table import Table

from ..engine.contract.errors import RequestError
from .options import DEFAULT_MODEL, ScaleOption, ThreadsOption
from .outputs import check_json, write_json
from .records import record_options
from .terminal import complain, headline, interrupt_number, interrupted, out, plain, progress_bar

if TYPE_CHECKING:
    from ..engine.benchmark.cases import Choice
    from ..engine.benchmark.results import Result, Run
    from ..engine.benchmark.run import Benchmark

_SIZES, _QUICK_SIZES = "160x90,640x360,1280x720", "160x90"
_BATCHES, _QUICK_BATCHES = "1,4", "1"
_BUDGET_S, _QUICK_BUDGET_S = 300.0, 60.0
_SECONDS, _QUICK_SECONDS = 3.0, 1.0  # of each measurement
_MOST = 64  # windows in a batch, and streams
_LEAST_SIDE, _MOST_SIDE = 16, 8192  # pixels


@dataclass(frozen=True)
class CaseOptions:
    """The combinations that are measured."""

    panel: ClassVar = "Cases"

    backend: Annotated[str, typer.Option(help="Only this one: ort, tensorrt, or remote with --url.")] = "all"
    device: Annotated[str, typer.Option(help="Only this one: cpu, cuda:N, or cuda:0,cuda:1 together.")] = "all"
    precision: Annotated[
        str | None, typer.Option(help="Only these, as fp16,tf32.", show_default="every one of the device")
    ] = None
    sizes: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="WxH,...",
            help="Sizes of the input in pixels, as 640x360,1080p.",
            show_default=f"{_SIZES}; with --quick {_QUICK_SIZES}; of --clip its own",
        ),
    ] = None
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="N,...",
            help="Windows that are computed at once; they come from as many streams.",
            show_default=f"{_BATCHES}; with --quick {_QUICK_BATCHES}",
        ),
    ] = None
    concurrency: Annotated[
        str, typer.Option(metavar="N,...", help="Streams that share the network at the same time, as 1,2,4.")
    ] = "1"
    scale: ScaleOption = None
    factor: Annotated[
        int | None,
        typer.Option(
            "-t", "--factor", help="Output frames per input frame.", min=1, show_default="2, or the bundle's own"
        ),
    ] = None
    threads: ThreadsOption = None
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="With --backend remote: the inference server.", show_default="none"),
    ] = None

    def choice(self, clip: Path | None, quick: bool) -> "Choice":
        """Return the engine's record. Raises RequestError for text that is not valid."""
        from ..engine.benchmark.cases import Choice
        from ..engine.pipeline.quantities import read_scale

        if self.backend not in ("all", "ort", "tensorrt", "remote"):
            raise RequestError(f"Unknown backend '{self.backend}': use all, ort, tensorrt or remote.")
        if clip is not None and self.sizes is not None:
            raise RequestError("--size has no effect with --clip, which has its own: leave out one of them.")
        if (self.backend == "remote") != (self.url is not None):
            raise RequestError("--backend remote and --url go together: give both, or neither.")
        if self.backend == "remote" and self.device != "all":
            raise RequestError("--device has no effect with --backend remote, where the server decides: leave it out.")
        return Choice(
            sizes=[_clip_size(clip)] if clip else _read_sizes(self.sizes or (_QUICK_SIZES if quick else _SIZES)),
            batches=_read_counts(self.batch or (_QUICK_BATCHES if quick else _BATCHES), "--batch"),
            concurrencies=_read_counts(self.concurrency, "--concurrency"),
            backend=self.backend,
            device=self.device,
            precisions=[] if self.precision is None else _words(self.precision),
            scale=None if self.scale is None else read_scale(self.scale),
            factor=self.factor,
            threads=self.threads,
            url=self.url,
        )


@record_options
def benchmark(
    cases: CaseOptions,
    bundles: Annotated[
        list[str] | None,
        typer.Argument(metavar="BUNDLE", help="Bundles, by name or folder, or chains.", show_default=DEFAULT_MODEL),
    ] = None,
    clip: Annotated[
        Path | None, typer.Option(help="Upscale this video.", show_default="a synthetic clip of each size")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One size and short measurements: less than a minute.")
    ] = False,
    budget: Annotated[
        float | None,
        typer.Option(
            help="Seconds for everything; cases that do not fit are named.",
            min=5,
            show_default=f"{_BUDGET_S:g}; with --quick {_QUICK_BUDGET_S:g}",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Show ratios to a run that was saved by -o RUN.json.", show_default="none"),
    ] = None,
    outputs: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--output",
            help="Write a page with charts (.html), or the run for --against (.json). Repeatable.",
            show_default="none",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the run as JSON.")] = False,
) -> None:
    """Measure speed, latency and memory of every backend, precision, size and batch that this machine can run."""
    from ..engine.benchmark.cases import Model, find_combinations
    from ..engine.benchmark.results import Figures, read_run
    from ..engine.benchmark.run import Benchmark
    from ..engine.contract.bundle import short_names

    for path in outputs or []:
        _check_output(path, overwrite)
    saved = None if against is None else read_run(against)
    models = {name: Model.find(model) for name, model in short_names(bundles or [DEFAULT_MODEL]).items()}
    combinations, unavailable = find_combinations(models, cases.choice(clip, quick))
    seconds = _QUICK_SECONDS if quick else _SECONDS
    budget_s = budget or (_QUICK_BUDGET_S if quick else _BUDGET_S)
    results: list[Result] = []
    code = 0
    with Benchmark(combinations, seconds, budget_s, clip) as running:
        try:
            _measure(running, results, len(combinations), no_progress or as_json)
        except KeyboardInterrupt as interrupt:
            what = f"{len(results)} of {len(combinations)} cases were measured"
            code = interrupted(f"Interrupted: {what}.", interrupt_number(interrupt))
    if code and not results:
        raise typer.Exit(code)
    run = _record(results, {name: model.facts() for name, model in models.items()}, unavailable, clip, seconds)
    _write(run, saved, outputs or [], overwrite)
    if as_json:
        out.print_json(json.dumps(_as_dict(run, saved)))
    else:
        _print(run, saved)
    if not code and all(result.figures == Figures() for result in results):
        complain("No case could be measured.")
        code = 1
    raise typer.Exit(code)


def _measure(running: "Benchmark", results: "list[Result]", total: int, hides_bar: bool) -> None:
    """Measure every case, and add its result to `results`."""
    with progress_bar(hides_bar) as progress:
        task = progress.add_task("", total=total, note="cases")
        for result in running.results(lambda case: progress.update(task, description=plain(case))):
            results.append(result)
            progress.advance(task)


def _record(results: "list[Result]", bundles: Any, unavailable: Any, clip: Path | None, seconds: float) -> "Run":
    """Return the record of a run on this machine, now."""
    from ..engine.benchmark.environment import hardware, versions
    from ..engine.benchmark.results import Run

    return Run(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        hardware=hardware(),
        versions=versions(),
        bundles=bundles,
        clip="synthetic" if clip is None else clip.name,
        seconds_each=seconds,
        results=tuple(results),
        unavailable=tuple(unavailable),
    )


def _write(run: "Run", saved: "Run | None", outputs: Sequence[Path], overwrite: bool) -> None:
    """Write the page, and the run for `--against`."""
    from ..engine.benchmark.page import page
    from ..engine.compare.document import write_page

    for path in outputs:
        if path.suffix.lower() == ".json":
            write_json(path, run.as_dict())
        else:
            write_page(path, page(run, saved), overwrite=overwrite)


def _as_dict(run: "Run", saved: "Run | None") -> dict[str, Any]:
    from ..engine.benchmark.against import differences, ratios

    if saved is None:
        return run.as_dict()
    compared = [
        {"case": case.model_dump(mode="json"), "ratios": one._asdict()} for case, one in ratios(run, saved).items()
    ]
    return {
        **run.as_dict(),
        "against": {"date": saved.date, "differences": differences(run, saved), "cases": compared},
    }


def _print(run: "Run", saved: "Run | None") -> None:
    """Print tables for people, and for issues."""
    from ..engine.benchmark.against import differences
    from ..engine.benchmark.page import facts, missing_rows, ratio_rows, speed_rows, stage_rows
    from ..engine.benchmark.results import Figures

    headline("stvsr benchmark")
    for line in facts(run):
        out.print(plain(line), soft_wrap=True)
    results = [result for result in run.results if result.figures != Figures()]
    numbers = {result.case: str(number) for number, result in enumerate(results, 1)}
    if numbers:
        out.print()
    for case, number in numbers.items():
        out.print(f"{number:>2}  {plain(case)}", soft_wrap=True)
    for title, (heads, rows) in (("", speed_rows(results)), ("ms a frame", stage_rows(results))):
        _print_table(title, heads, [(numbers[result.case], cells) for result, cells in rows])
    for warning in dict.fromkeys(warning for result in results for warning in result.figures.warnings):
        out.print(f"Note: {plain(warning)}", soft_wrap=True)
    if saved is not None:
        names, found = ratio_rows(run, saved)
        compared = [(numbers[case], cells) for case, cells in found]
        out.print(f"\nOver the run of {plain(saved.date)}:" if compared else "\nThe saved run has none of these cases.")
        _print_table("", names, compared)
        for line in differences(run, saved):
            out.print(f"  {plain(line)}", soft_wrap=True)
    if missing := missing_rows(run):
        out.print("\nNot measured:")
        for label, reason in missing:
            out.print(f"  {plain(label)}: {plain(reason)}", soft_wrap=True)


def _print_table(title: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Print figures of numbered cases; nothing without cases."""
    if not rows:
        return
    table = Table(title, box=None)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for number, cells in rows:
        table.add_row(number, *cells)
    out.print()
    out.print(table)


def _check_output(path: Path, overwrite: bool) -> None:
    """Raise RequestError for an output that cannot be written."""
    from ..engine.compare.document import check_page

    if path.suffix.lower() == ".json":
        check_json(path, "the run", overwrite=overwrite)
    else:
        check_page(path, overwrite)


def _clip_size(clip: Path) -> tuple[int, int]:
    """Return the size (width, height) in which a clip's frames are read."""
    from ..engine.media.image_files import is_images
    from ..engine.media.reader import open_reader

    if is_images(clip):
        raise RequestError(f"--clip takes a video, and {clip} is an image or a folder of images.")
    with open_reader(clip) as reader:
        return reader.info.width, reader.info.height


def _words(text: str) -> list[str]:
    return [word for part in text.split(",") if (word := part.strip())]


def _read_counts(text: str, option: str) -> list[int]:
    counts = [int(word) for word in _words(text) if word.isascii() and word.isdigit() and len(word) < 4]
    if len(counts) != len(_words(text)) or not counts or not all(1 <= count <= _MOST for count in counts):
        raise RequestError(f"{option} is '{text}': write numbers from 1 to {_MOST} with commas between, as in 1,2,4.")
    return list(dict.fromkeys(counts))


def _read_sizes(text: str) -> list[tuple[int, int]]:
    from ..engine.pipeline.quantities import target_size

    sizes = [target_size(word, 1920, 1080) for word in _words(text)]
    for width, height in sizes:
        if width % 2 or height % 2 or not _LEAST_SIDE <= min(width, height) <= max(width, height) <= _MOST_SIDE:
            raise RequestError(
                f"The size {width}x{height} is not that of a clip: give even sides from {_LEAST_SIDE} to {_MOST_SIDE}"
                " pixels."
            )
    if not sizes:
        raise RequestError(f"'{text}' has no size: write width and height in pixels, as in 640x360.")
    return list(dict.fromkeys(sizes))
