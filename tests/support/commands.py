"""Runs of the command line, in a process of its own or in this one."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from stvsr.cli.app import main
from stvsr.engine.contract import interrupts

Run = Callable[..., subprocess.CompletedProcess[str]]


def stvsr(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `stvsr` with a wide terminal and without colour."""
    return subprocess.run(
        [sys.executable, "-m", "stvsr", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", **environment},
    )


def run_inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function as `stvsr` that calls `main` in this process, in a tenth of the time of another one."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(interrupts, "_received", [])  # signals of tests before, in this process
        monkeypatch.setattr(sys, "argv", ["stvsr", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return subprocess.CompletedProcess(sys.argv, int(ended.value.code or 0), *capsys.readouterr())

    return run


def assert_one_clear_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that a run failed with a single line on stderr that contains the words."""
    assert done.returncode not in (0, None), done.stdout
    text = done.stderr.strip()
    assert "Traceback" not in text, text
    assert text.count("\n") == 0, text
    for word in words:
        assert word in text, text
