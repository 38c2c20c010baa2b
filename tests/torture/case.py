"""A case of the corpus, its folder, and what came of it."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

GIB = 1 << 30
CPU_S = 40  # a case that takes more has hung, whatever else runs on the machine
WALL_S = 120.0  # of a case that sleeps
KINDS = ("traceback", "signal", "hang", "count", "mute", "bad", "left", "unsafe", "expectation", "shorter")
Expectation = Literal["ok", "refuse", "any"]


class Room:
    """A case's folder, with in/, out/, tmp/, cache/ and home/; `shared` has the clips that many cases use."""

    def __init__(self, root: Path, name: str, shared: Path) -> None:
        self.root, self.shared = root / name, shared
        for part in ("in", "out", "tmp", "cache", "home"):
            (self.root / part).mkdir(parents=True, exist_ok=True)

    def __truediv__(self, name: str) -> Path:
        return self.root / name


@dataclass
class Result:
    """The end of a case: exit code, output, seconds, peak memory, and its faults by kind."""

    rc: int = 0
    out: str = ""
    err: str = ""
    wall_s: float = 0.0
    peak_mb: float = 0.0
    faults: dict[str, str] = field(default_factory=dict)
    skipped: str = ""

    def fault(self, kind: str, why: str) -> None:
        """Add a fault; the first of a kind counts."""
        self.faults.setdefault(kind, why)


Make = Callable[[Room], object]
Act = Callable[[Room, "subprocess.Popen[bytes]"], object]
After = Callable[[Room, Result], object]


@dataclass
class Case:
    """A run of the command. `args`, `shell` and `outer` may hold {in}, {out}, {toy}, {shared} and {room}."""

    name: str
    args: list[Any]  # texts, and bytes for names that are no text
    expect: Expectation = "any"
    make: Make | None = None  # fills the folder
    factor: int | None = None  # in time: frames out are so many times frames in; 0: any number
    inputs: int | None = None  # frames of the input, where that is sure
    was: int | None = None  # frames that it had before it was damaged
    size: tuple[int, int] | None = None  # (width, height) of the output
    output: str = "out/out.mp4"
    limits: dict[str, int] = field(default_factory=dict)  # of resource: AS, NOFILE, FSIZE, NPROC
    nobody: bool = False  # run as a user who may not do everything
    shell: str | None = None  # a script around "$@"
    act: Act | None = None  # while it runs
    after: After | None = None
    cwd: str = "."
    wall_s: float = WALL_S
    cpu_s: int = CPU_S
    api: bool = False  # `args` is a program with its arguments, and no command of stvsr
    outer: list[str] = field(default_factory=list)  # before all of it
    max_mb: int | None = None  # more resident memory than this is a fault
    stdout_full: bool = False
    telemetry: bool = False  # leave ONNX Runtime's setting to stvsr


def upscale(source: str, *more: Any, output: str = "{out}/out.mp4") -> list[Any]:
    """Return the arguments of a run with the toy bundle, which is fast."""
    return ["upscale", source, "-o", output, "-m", "{toy}", "--threads", "1", "--json", *more]
