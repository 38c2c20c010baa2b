"""Tables and charts of the adaptation benchmark, from made-up lines."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.adaptation import __main__ as adaptation
from benchmarks.adaptation.chart import chart
from benchmarks.adaptation.gate import agreement
from benchmarks.adaptation.goals import Goal
from benchmarks.adaptation.meta import curves
from benchmarks.adaptation.table import BEGIN, END, table, write_table
from tests.support.adaptation_runs import adapted_line, meta_line


@pytest.mark.parametrize(
    ("goal", "row"),
    [
        (Goal("gain", 0.3, "dB", 0.35), "| gain | above 0.3 dB | +0.350 dB | met |  |"),
        (Goal("gain", 0.3, "dB", 0.05), "| gain | above 0.3 dB | +0.050 dB | missed by 0.250 dB |  |"),
        (Goal("gain", 0.0, "dB", 0.0), "| gain | above 0 dB | +0.000 dB | missed by 0.000 dB |  |"),
        (Goal("time", 2.0, "s", 2.5, True, "4 clips"), "| time | below 2 s | 2.500 s | missed by 0.500 s | 4 clips |"),
        (Goal("time", 2.0, "s", 1.5, True), "| time | below 2 s | 1.500 s | met |  |"),
        (Goal("time", 2.0, "s", None, True), "| time | below 2 s | not measured | | |"),
    ],
)
def test_row_of_a_goal_says_by_how_much_it_is_missed(goal: Goal, row: str) -> None:
    assert goal.row == row


def test_table_has_means_over_clips_of_the_last_measurements() -> None:
    old = [adapted_line("a", 30.0, 25.0, weights="old"), adapted_line("b", 30.0, 25.0, weights="old")]
    new = [adapted_line("a", 30.0, 30.5, weights="new"), adapted_line("b", 20.0, 20.1, weights="new")]
    rows = table([*old, *new]).splitlines()
    assert (
        "| self-supervised, edvr-s: gain | above 0 dB | +0.300 dB | met | 2 clips; trained for 20 steps of 40 |" in rows
    )
    assert any(
        row.startswith("| self-supervised, edvr-s: change of tOF | below 0 px | -0.100 px | met |") for row in rows
    )
    assert any("25.00 to 25.30 | +0.50, +0.10 | 0.500 to 0.400 | 3 |" in row for row in rows)
    assert any(row.startswith("| self-supervised, toflow-s: gain | above 0 dB | not measured |") for row in rows)


def test_meta_trained_start_is_compared_with_the_plain_one_by_each_optimizer() -> None:
    lines = [meta_line("meta-trained", "sgd", 10, 20.0, weights="older")]
    lines += [meta_line("plain", "sgd", 10, 25.5), meta_line("plain", "adam", 10, 25.9)]
    lines += [meta_line("plain", "sgd", 100, 26.0)]
    lines += [meta_line("meta-trained", "sgd", 10, 25.8), meta_line("meta-trained", "adam", 10, 26.0)]
    rows = table(lines).splitlines()
    for row in (
        "10 steps of SGD, estimated blur: gain over the plain start | above 0.2 dB | +0.300 dB | met |",
        "10 steps of SGD, estimated blur: gain over 100 plain steps | above -0.1 dB | -0.200 dB | missed by 0.100 dB |",
        "10 steps of Adam, estimated blur: gain over the plain start | above 0.2 dB | +0.100 dB | missed by 0.100 dB |",
        "10 steps of Adam, estimated blur: gain over 100 plain steps | above -0.1 dB | not measured | |",
    ):
        assert any(row in line for line in rows), row


def test_distillation_is_compared_with_the_student_and_the_teacher() -> None:
    lines = []
    for learner, after, seconds in (("student", 30.0, 10.0), ("distilled", 30.2, 14.0), ("teacher", 31.0, 28.0)):
        line = adapted_line("a", 29.0, after, learner=learner, teacher="edvr-m")
        lines.append({**line, "part": "distilled", "seconds": seconds})
    trial = {"network": "edvr-s", "teacher": "edvr-l", "clip": "a"}
    lines.append({"part": "distilled-time", "trial": trial, "distilled_seconds": 20.0, "teacher_seconds": 80.0})
    rows = table(lines).splitlines()
    for row in (
        "full-size teacher: time over that of the teacher's own adaptation | below 0.667 | 0.250 | met | 1 clip; "
        "teacher edvr-l, untrained |",
        "edvr-s: gain over the self-supervised student | above 0 dB | +0.200 dB | met |",
        "edvr-s: time over that of the teacher's own adaptation | below 0.667 | 0.500 | met |",
    ):
        assert any(row in line for line in rows), row


def test_tables_are_written_between_their_markers(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        write_table([adapted_line("a", 30.0, 30.5)], readme)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert text.count("+0.500 dB") == 1
    readme.write_text("no markers")
    with pytest.raises(ValueError, match="add both"):
        write_table([], readme)


def test_readme_of_the_benchmark_has_the_markers() -> None:
    text = adaptation.README.read_text()
    assert 0 < text.index(BEGIN) < text.index(END)


def test_table_command_writes_the_tables_from_the_lines(tmp_path: Path) -> None:
    out, readme = tmp_path / "out", tmp_path / "README.md"
    out.mkdir()
    (out / "adaptation.jsonl").write_text(json.dumps(adapted_line("a", 30.0, 30.25)) + "\n")
    readme.write_text(f"{BEGIN}\n{END}\n")
    adaptation.main(["table", str(out), "--readme", str(readme)])
    assert "+0.250 dB" in readme.read_text()


def test_chart_draws_every_point_at_its_position() -> None:
    drawn = ElementTree.fromstring(chart({"a & b": {0: 25.0, 10: 25.6}, "c": {0: 24.9, 10: 26.0, 100: 26.3}}, "t"))
    namespace = "{http://www.w3.org/2000/svg}"
    first, second = (
        [tuple(map(float, p.split(","))) for p in line.attrib["points"].split()]
        for line in drawn.iter(f"{namespace}polyline")
    )
    assert [len(first), len(second)] == [2, 3]
    assert first[0][0] == second[0][0] < first[1][0] == second[1][0] < second[2][0]
    assert second[2][1] < second[1][1] < first[1][1] < first[0][1] < second[0][1]  # y grows downwards
    height = (first[0][1] - first[1][1]) / 0.6
    assert (second[0][1] - second[2][1]) / 1.4 == pytest.approx(height, rel=0.01)
    assert "a & b" in [text.text for text in drawn.iter(f"{namespace}text")]


def test_curves_are_means_over_clips() -> None:
    lines = [
        meta_line("plain", "sgd", 10, 25.0),
        meta_line("plain", "sgd", 10, 26.0),
        meta_line("plain", "sgd", 0, 24.0),
    ]
    assert curves(lines) == {"plain, SGD 0.01": {0: 24.0, 10: 25.5}}


def test_agreement_counts_right_verdicts() -> None:
    correct = {"blur": "bicubic", "assumed": "bicubic"}
    records = [
        {**correct, "kept": True, "gain_db": 0.2, "true_gain_db": 0.1},
        {**correct, "kept": False, "gain_db": -0.2, "true_gain_db": -0.3},
        {**correct, "kept": False, "gain_db": -0.1, "true_gain_db": 0.05},
        {**correct, "kept": False},  # the run was not completed
        {"blur": "bicubic", "assumed": "estimated", "kept": True, "gain_db": 1.0, "true_gain_db": -1.0},
    ]
    summary = agreement(records)
    right = summary["correct or bicubic"]
    assert (right["agree"], right["trials"]) == (2, 3)
    assert right["largest_miss_db"] == 0.05
    assert right["always_db"] == pytest.approx(-0.05)
    assert right["kept_db"] == pytest.approx(0.0333, abs=1e-4)
    assert (summary["estimated"]["agree"], summary["estimated"]["largest_miss_db"]) == (0, 1.0)
    assert "wrong" not in summary


def test_table_counts_the_last_verdict_of_each_trial() -> None:
    trial = {"network": "edvr-s", "clip": "a", "blur": "bicubic", "assumed": "estimated", "rate": 1e-4, "steps": 15}
    verdicts = [([192, 320], True, -3.0), ("whole", False, -0.5)]
    lines = [
        {"part": "gate", "trial": {**trial, "size": size}, "kept": kept, "gain_db": 0.1, "true_gain_db": gain}
        for size, kept, gain in verdicts
    ]
    assert "| estimated | 1 of 1 | 0.00 | +0.000 | -0.500 | 1 clip |" in table(lines).splitlines()
