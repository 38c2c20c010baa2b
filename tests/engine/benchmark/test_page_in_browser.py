"""The page of a benchmark in a real browser: nothing is blocked, and all of it is seen on a narrow screen."""

from pathlib import Path

import pytest
from stvsr.engine.benchmark.page import page
from stvsr.engine.benchmark.results import Case, Figures, Percentiles, Result, Run

from tests.support.browser import CHROMIUM, browsing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


def test_the_page_is_drawn(tmp_path: Path) -> None:
    results = []
    for number, precision in enumerate(("fp32", "fp16"), 1):
        case = Case(
            bundle="a <b>",
            backend="ort",
            title="ONNX Runtime",
            device="cpu",
            precision=precision,
            size_in=(64, 36),
            size_out=(256, 144),
            factor=2,
        )
        stages = {"decode": 1.0, "upload": 0.0, "network": 20.0 * number, "download": 2.0, "other": 1.0, "encode": 3.0}
        figures = Figures(
            fps=10.0 * number,
            whole_fps=8.0,
            request_ms=Percentiles.of([100.0, 12345.0]),
            stages_ms=stages,
            peak_memory_bytes=10**8,
        )
        results.append(Result(case=case, figures=figures))
    run = Run(
        date="2026-01-01",
        hardware={"cpu": "C"},
        versions={"numpy": "2"},
        bundles={},
        clip="synthetic",
        seconds_each=1,
        results=tuple(results),
    )
    path = tmp_path / "page.html"
    path.write_text(page(run, run))
    for width in (1100, 400):
        with browsing(tmp_path / str(width), width=width) as browser:
            browser.open(path.as_uri())
            assert browser.run("document.documentElement.scrollWidth") <= width
            widths = browser.run(
                "[...document.querySelector('svg.chart').querySelectorAll('rect')]"
                ".map((bar) => bar.getBoundingClientRect().width)"
            )
            assert widths[1] == pytest.approx(2 * widths[0], rel=0.01)
            fill = browser.run("getComputedStyle(document.querySelector('.bar-1')).fill")
            assert fill != "rgb(0, 0, 0)", "the style is allowed"
            overflows = browser.run(
                "[...document.querySelectorAll('svg.chart text')].filter((text) => text.getBoundingClientRect().right >"
                " text.closest('svg').getBoundingClientRect().right).length"
            )
            assert overflows == 0
            assert browser.console == []
