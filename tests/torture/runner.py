"""Run a case in a folder of its own, and judge what came of it."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import av
from stvsr.engine.contract.video_file import METADATA_ARGUMENTS

from tests.torture.case import Case, Result, Room

_AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
_OTHERS = {".ses", "torchinductor_root"}  # in TMPDIR, of others: ONNX Runtime, PyTorch's cache
_SENTENCE = re.compile(r"Error:|╭─ Error|Usage:|Interrupted:")
_FRAME = re.compile(r'File ".*?/((?:cli|engine|export|training|kernels)/[\w/]+\.py)", line (\d+)')
_ERROR = re.compile(r"^[\w.]+(Error|Exception|Interrupt|Exit)\b")


def run(case: Case, root: Path, shared: Path) -> Result:
    """Run a case below `root`, and return its end with its faults."""
    room, result = Room(root, case.name, shared), Result()
    if why := _cannot_run(case):
        result.skipped = why
        return result
    if case.make is not None:
        case.make(room)
    before = set(_contents(room))
    _execute(case, room, result)
    _judge(case, room, result, before)
    if case.after is not None:
        case.after(room, result)
    return result


def _cannot_run(case: Case) -> str:
    """Return why this machine cannot run a case, or nothing."""
    if (case.nobody or "unshare" in case.outer) and os.geteuid() != 0:
        return "needs root"
    if case.nobody and not _nobody_can_run():
        return "needs a checkout and an environment that every user may read"
    return next((f"needs {word}" for word in case.outer[:1] if shutil.which(word) is None), "")


@cache
def _nobody_can_run() -> bool:
    return subprocess.run([*_AS_NOBODY, sys.executable, "-c", "import stvsr"], capture_output=True).returncode == 0


def _contents(room: Room) -> list[Path]:
    return [path for part in ("out", "in") for path in (room / part).rglob("*")]


def _command(case: Case, room: Room) -> list[Any]:
    names = {"in": str(room / "in"), "out": str(room / "out"), "toy": str(room.shared / "toy"), "room": str(room.root)}
    names["shared"] = str(room.shared)
    words = [word.format(**names) if isinstance(word, str) else word for word in case.args]
    words = [sys.executable, *([] if case.api else ["-m", "stvsr"]), *words]
    if case.shell is not None:
        words = ["sh", "-c", case.shell.format(**names), "sh", *words]
    words = [*case.outer, *words]
    if case.nobody:
        words = [*_AS_NOBODY, *words]
        for folder in [*room.root.rglob("*"), room.root]:
            if folder.is_dir() and not folder.is_symlink() and folder.stat().st_mode & 0o200:
                folder.chmod(0o777)
    return words


def _environment(case: Case, room: Room) -> dict[str, str]:
    env = {**os.environ, "TMPDIR": str(room / "tmp"), "STVSR_CACHE": str(room / "cache"), "HOME": str(room / "home")}
    env |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"}
    env |= {"NO_COLOR": "1", "ORT_DISABLE_TELEMETRY": "1"}
    if case.telemetry:
        del env["ORT_DISABLE_TELEMETRY"]
    return env


def _execute(case: Case, room: Room, result: Result) -> None:
    def prepare() -> None:
        os.setsid()
        os.nice(5)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CPU, (case.cpu_s, case.cpu_s + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for limit, value in case.limits.items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{limit}"), (value, value))

    began, own_kb = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open(room / "stdout", "wb") as out, open(room / "stderr", "wb") as err, open("/dev/full", "wb") as full:
        process = subprocess.Popen(
            _command(case, room),
            stdin=subprocess.DEVNULL,
            stdout=full if case.stdout_full else out,
            stderr=err,
            env=_environment(case, room),
            cwd=room / case.cwd,
            preexec_fn=prepare,
        )
        if case.act is not None:
            threading.Thread(target=case.act, args=(room, process), daemon=True).start()
        timer = threading.Timer(case.wall_s, _kill, (process, result, case.wall_s))
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
    process.returncode = result.rc = os.waitstatus_to_exitcode(status)
    result.wall_s = time.monotonic() - began
    # Before it is replaced by the program the new process is as large as this one.
    if usage.ru_maxrss > own_kb:
        result.peak_mb = usage.ru_maxrss / 1024
    result.out = (room / "stdout").read_text(errors="replace")
    result.err = (room / "stderr").read_text(errors="replace")


def _kill(process: "subprocess.Popen[bytes]", result: Result, wall_s: float) -> None:
    result.fault("hang", f"still there after {wall_s:.0f} s")
    os.killpg(process.pid, signal.SIGKILL)


def _judge(case: Case, room: Room, result: Result, before: set[Path]) -> None:
    _judge_words(case, result)
    if case.expect == "ok" and result.rc != 0:
        result.fault("expectation", f"refused: {result.err.strip()[-200:]}")
    if case.expect == "refuse" and result.rc == 0:
        result.fault("expectation", "accepted")
    if case.max_mb is not None and result.peak_mb > case.max_mb:
        result.fault("expectation", f"{result.peak_mb:.0f} MB resident, allowed {case.max_mb}")
    if (room / "pwned").exists():
        result.fault("unsafe", "code of the input was run")
    if result.rc == 0 and case.factor is not None:
        _judge_output(case, room, result)
    left = [path for path in (room / "tmp").rglob("*") if path.name not in _OTHERS]
    if result.rc != 0:
        left += [path for path in _contents(room) if path not in before]
    else:
        left += [path for path in (room / "out").rglob("*") if ".part" in path.name]
    if left:
        result.fault("left", ", ".join(str(path.relative_to(room.root)) for path in left[:4]))


def _judge_words(case: Case, result: Result) -> None:
    """Judge the exit code and what was printed."""
    rc, err = result.rc, result.err
    if "Traceback (most recent call last)" in err + result.out:
        last = [line for line in err.splitlines() if _ERROR.match(line)]
        frames = _FRAME.findall(err)
        where = ":".join(frames[-1]) if frames else "?"
        result.fault("traceback", f"{(last or ['?'])[-1][:160]} @ {where}")
    if rc in (-signal.SIGXCPU, -signal.SIGKILL) and "hang" not in result.faults and case.act is None:
        result.fault("hang", f"{case.cpu_s} s of processor time")
    elif rc < 0 and "hang" not in result.faults and case.act is None:
        result.fault("signal", signal.Signals(-rc).name)
    if rc > 0 and not _SENTENCE.search(err) and rc != 130 and "Usage:" not in result.out:
        result.fault("mute", (err.strip().splitlines() or ["nothing on stderr"])[-1][:160])


def _judge_output(case: Case, room: Room, result: Result) -> None:
    output = room / case.output
    report = json.loads(result.out) if result.out.startswith("{") else {}
    if not output.is_file():
        result.fault("bad", "exit 0, and no output")
        return
    seen = look(output)
    if seen["failed"] or seen["errors"] or not seen["growing"]:
        result.fault("bad", f"the output is not clean: {seen}")
    if case.size is not None and seen["size"] != case.size:
        result.fault("bad", f"size {seen['size']}, wanted {case.size}")
    if not report:
        return
    frames_in, frames_out = report["frames_in"], report["frames_out"]
    if seen["frames"] != frames_out:
        result.fault("count", f"reported {frames_out}, decoded {seen['frames']}")
    if case.factor and frames_out != case.factor * frames_in:
        result.fault("count", f"{frames_in} in, {frames_out} out at x{case.factor}")
    if case.inputs is not None and frames_in != case.inputs:
        result.fault("count", f"{case.inputs} frames in the input, {frames_in} read")
    if case.was is not None:
        source = Path(report["input"])
        apart = look(source) if source.is_file() else None
        if apart and frames_in < apart["frames"] - apart["errors"]:
            result.fault("count", f"PyAV alone decodes {apart['frames']}, {frames_in} were read")
        if frames_in < case.was and not report["warnings"]:
            result.fault("shorter", f"{case.was} frames before the damage, {frames_in} after, exit 0 and no warning")


def look(path: Path) -> dict[str, Any]:
    """Decode a video with PyAV alone, and count its frames and errors."""
    found: dict[str, Any] = {"frames": 0, "errors": 0, "growing": True, "size": None, "failed": ""}
    last = None
    try:
        with av.open(str(path), **METADATA_ARGUMENTS) as container:
            for packet in container.demux(container.streams.video[0]):
                try:
                    pictures = packet.decode()
                except av.error.FFmpegError:
                    found["errors"] += 1
                    continue
                for picture in pictures:
                    found["frames"] += 1
                    found["size"] = (picture.width, picture.height)
                    found["growing"] &= last is None or picture.pts is None or picture.pts > last
                    last = picture.pts if picture.pts is not None else last
    except (av.error.FFmpegError, IndexError) as error:
        found["failed"] = str(error)
    return found
