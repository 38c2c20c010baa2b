"""Runs of the command line in a process of its own."""

import os
import subprocess
import sys


def stvsr(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `stvsr` with a wide terminal and without colour."""
    return subprocess.run(
        [sys.executable, "-m", "stvsr", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", **environment},
    )


def assert_one_clear_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that a run failed with a single line on stderr that contains the words."""
    assert done.returncode not in (0, None), done.stdout
    text = done.stderr.strip()
    assert "Traceback" not in text, text
    assert text.count("\n") == 0, text
    for word in words:
        assert word in text, text
