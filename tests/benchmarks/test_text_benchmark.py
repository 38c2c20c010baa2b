"""The benchmark of moving text."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.text import MOTIONS, SCALE, measure, scenes, table


def test_the_text_moves_by_what_is_stated() -> None:
    for motion, inputs, truth in scenes():
        first, second = inputs
        np.testing.assert_allclose(first[:, motion + 4 : -4], second[:, 4 : -motion - 4], atol=3e-2)
        assert truth.shape == (SCALE * first.shape[1], SCALE * first.shape[2], 3)


@pytest.mark.slow
def test_each_motion_is_a_line_and_a_row(tmp_path: Path) -> None:
    measure("fourier-s", tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "text.jsonl").read_text().splitlines()]
    assert [line["motion_px"] for line in lines] == list(MOTIONS)
    assert lines[0]["psnr_y_db"] > lines[0]["blended_db"] + 2, "a small motion is found"
    assert [row.split(" | ")[0] for row in table(tmp_path).splitlines()[2:]] == [f"| {motion}" for motion in MOTIONS]
