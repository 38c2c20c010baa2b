"""Answers for programs: events as lines of JSON, errors as JSON with stable codes, and the log file."""

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr import Backend, UpscaleRequest, upscale
from stvsr.cli.progress import RunEvents
from stvsr.cli.terminal import Terminal, answers
from stvsr.cli.upscale import _print_report
from stvsr.engine.contract import errors

from tests.support.commands import Run, assert_one_clear_error, run_inside, stvsr
from tests.support.media import make_video, pan
from tests.support.paths import SAMPLE


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return run_inside(monkeypatch, capsys)


@pytest.fixture
def options(toy: Path) -> list[str]:
    return ["-m", str(toy), "-s", "2", "--device", "cpu"]


def events_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Return the events of a run, whose stderr holds nothing else."""
    return [json.loads(line) for line in done.stderr.splitlines()]


def named(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == name]


def test_a_run_sends_its_events(inside: Run, options: list[str], tmp_path: Path) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (4, *pan(1)[0].shape), np.uint8)
    clip = make_video(tmp_path / "clip.mp4", [*pan(5), *noise])
    out = tmp_path / "out.mp4"
    done = inside("upscale", clip, "-o", out, *options, "--progress", "json")
    assert done.returncode == 0, done.stderr
    events = events_of(done)
    assert [event["event"] for event in (events[0], events[-1])] == ["started", "finished"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", event["time"]) for event in events)
    assert all(event["input"] == str(clip) for event in events)
    last = named(events, "progress")[-1]
    assert (last["stage"], last["frames"], last["total"]) == ("upscale", 9, 9)
    assert last["speed"] > 0
    (cut,) = named(events, "cut")
    assert cut["seconds"] == pytest.approx(events[-1]["report"]["cuts_s"][0])
    assert events[-1]["output"] == str(out)
    assert events[-1]["report"]["frames_out"] == 18


def test_warnings_are_events(inside: Run, toy: Path, short: Path, tmp_path: Path) -> None:
    done = inside("upscale", short, "-o", tmp_path / "o.mp4", "-m", toy, "--size", "101x67", "--progress", "json")
    (warning,) = named(events_of(done), "warning")
    assert "made even" in warning["message"]
    assert events_of(done)[-1]["report"]["warnings"] == [warning["message"]]


def test_wrong_options_of_a_batch_are_an_event(inside: Run, short: Path, tmp_path: Path) -> None:
    done = inside("batch", short, "-o", tmp_path / "out", "--fps", "fast", "--progress", "json")
    (event,) = events_of(done)
    assert (event["event"], event["error"]["code"], done.returncode) == ("failed", "request", 1)


def test_a_batch_sends_the_events_of_each_video(options: list[str], tmp_path: Path) -> None:
    good, bad = make_video(tmp_path / "good.mp4", pan(5)), tmp_path / "bad.mp4"
    bad.write_bytes(good.read_bytes()[:1000])
    done = stvsr("batch", good, bad, "-o", tmp_path / "out", *options, "--progress", "json", "--json")
    assert done.returncode == 1
    events = events_of(done)
    of_good = [event for event in events if event["input"] == str(good)]
    assert [of_good[0]["event"], of_good[-1]["event"]] == ["started", "finished"]
    assert named(of_good, "progress")[-1]["frames"] == 5
    (failed,) = [event for event in events if event["input"] == str(bad)]
    assert (failed["event"], failed["error"]["code"]) == ("failed", "media")
    outcomes = json.loads(done.stdout)["outcomes"]
    assert [outcome["code"] for outcome in outcomes] == [None, "media"]
    assert outcomes[1]["error"] == failed["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("info {folder}/missing.mp4", "media"),
        ("info", "request"),
        ("upscale {folder}/missing.mp4", "media"),
        ("upscale {short} -m nothing", "bundle"),
        ("upscale {short} -m {toy} --backend tensorrt --device cpu", "backend"),
        ("batch {folder} -o {folder}/out", "request"),
        ("compile {toy} --library openvino", "backend"),
        ("triton nothing -o {folder}/repository", "bundle"),
        ("evaluate {toy} {folder}/missing.mp4", "media"),
        ("adapt {short} -m edvr-s -o {folder}/b --method guess", "request"),
    ],
)
def test_every_command_with_json_answers_errors_as_json(
    inside: Run, short: Path, toy: Path, tmp_path: Path, arguments: str, code: str
) -> None:
    done = inside(*arguments.format(folder=tmp_path, short=short, toy=toy).split(), "--json")
    answer = json.loads(done.stdout)
    assert (list(answer), done.returncode) == (["error"], 1)
    assert answer["error"]["code"] == code
    assert_one_clear_error(done, answer["error"]["message"])


def test_wrong_options_and_faults_of_the_environment_have_codes(
    inside: Run, short: Path, toy: Path, tmp_path: Path
) -> None:
    done = inside("upscale", short, "--bogus", "--json")
    assert (json.loads(done.stdout)["error"]["code"], done.returncode) == ("usage", 2)
    done = inside("nothing", "--json")
    assert (json.loads(done.stdout)["error"]["code"], done.returncode) == ("usage", 2)
    done = inside("batch", short, "-m", toy, "-o", tmp_path / "out", "--store", short, "--json")
    assert (json.loads(done.stdout)["error"]["code"], done.returncode) == ("environment", 1)


def test_a_bug_is_answered_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], short: Path
) -> None:
    def broken(path: str) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("stvsr.engine.media.reader.describe", broken)
    with pytest.raises(ZeroDivisionError):
        run_inside(monkeypatch, capsys)("info", short, "--json")
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"error": {"code": "internal", "message": "ZeroDivisionError: a bug"}}


def test_every_kind_of_error_has_a_code_of_its_own() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.StvsrError)]
    codes = [kind("x").code for kind in kinds]
    assert len(kinds) > 10
    assert len(set(codes)) == len(kinds)
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", code) for code in codes)


def test_the_error_of_a_run_into_a_pipe_is_not_in_the_video(inside: Run, toy: Path, tmp_path: Path) -> None:
    done = inside("upscale", tmp_path / "missing.mp4", "-m", toy, "-o", "-", "--json")
    assert (done.stdout, json.loads(done.stderr)["error"]["code"]) == ("", "media")
    done = inside("upscale", tmp_path / "missing.mp4", "-m", toy, "-o", "-", "--json", "--progress", "json")
    assert (done.stdout, events_of(done)[-1]["event"]) == ("", "failed")


def test_an_interrupt_is_an_event(options: list[str], tmp_path: Path) -> None:
    arguments = ["upscale", str(SAMPLE), "-o", str(tmp_path / "out.mp4"), *options, "--progress", "json", "--json"]
    running = subprocess.Popen(
        [sys.executable, "-m", "stvsr", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list(tmp_path.iterdir()) and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 143
    failed = json.loads(stderr.splitlines()[-1])
    assert (failed["event"], failed["exit_code"], failed["error"]["code"]) == ("failed", 143, "interrupted")
    assert json.loads(stdout) == {"error": failed["error"]}


@pytest.mark.parametrize(
    ("encoder", "line"),
    [
        (["-e", "preset=nonsense"], "x264 [error]: invalid preset"),
        (["--codec", "libsvtav1", "-e", "preset=12"], "Svt[info]"),
    ],
)
def test_lines_of_encoders_are_in_the_log_and_not_on_the_terminal(
    options: list[str], short: Path, tmp_path: Path, encoder: list[str], line: str
) -> None:
    command = ["upscale", short, *options, *encoder, "--overwrite", "-o", tmp_path / "out.mp4"]
    log = tmp_path / "log.txt"
    for extra in ([], ["--log-file", log, "--log-level", "debug"]):
        done = stvsr(*command, *extra)
        assert line not in done.stderr
        assert len(done.stderr.splitlines()) == (done.returncode != 0), done.stderr
    text = log.read_text()
    assert line in text
    assert done.returncode == 0 or "[libx264 @" in text, "FFmpeg's own line"
    assert re.search(r"^\S+ \S+ INFO started \{", text, re.M)
    assert ("ERROR failed" in text) == (done.returncode != 0)
    assert "DEBUG progress" in text


def test_options_of_progress_that_contradict_each_other_are_refused(inside: Run, short: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (["--log-level", "info"], "--log-file"),
        (["--progress", "dots"], "Unknown progress 'dots'"),
        (["--no-progress", "--progress", "json"], "contradict"),
        (["--log-file", tmp_path / "none" / "log"], "cannot be opened"),
        (["--log-file", tmp_path / "log", "--log-level", "loud"], "Unknown log level 'loud'"),
    ):
        assert_one_clear_error(inside("upscale", short, *arguments), words)
    assert list(tmp_path.iterdir()) == []


def test_a_run_on_a_gpu_says_what_comes_before_full_speed(
    short: Path, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report is that of a run on the CPU, changed to one of a GPU."""
    request = UpscaleRequest(input=short, model=toy, output=tmp_path / "out.mp4", backend=Backend(device="cpu"))
    report = replace(upscale(request), opening_seconds=1.25, first_run_seconds=0.5)
    words = "to open the network"
    for changed, shown in (
        (replace(report, device="cuda:0"), True),
        (report, False),
        (replace(report, device="cuda:0", opening_seconds=0.25), False),
    ):
        _print_report(changed, Terminal())
        assert (words in capsys.readouterr().out) == shown


def test_a_run_that_waits_for_the_weights_of_a_scene_sends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(answers, "sinks", [lambda event, facts: sent.append((event, facts))])
    events = RunEvents(UpscaleRequest(input="clip.mp4"))
    events.start("adapt")
    events.learn(1)
    events.advance(5, 9)
    events.learn(2)
    events.advance(6, 9)
    facts = [(e["stage"], e["frames"], e["total"], e.get("scene")) for event, e in sent if event == "progress"]
    assert facts == [
        ("adapt", 0, None, None),
        ("adapt", 0, None, 1),
        ("upscale", 5, 9, None),
        ("adapt", 5, 9, 2),
        ("upscale", 6, 9, None),
    ]
