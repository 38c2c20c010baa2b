"""Whole runs of `stvsr upscale`, each in a process of its own, so that its start-up and its peak memory are its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def upscale_report(clip: Path, output: Path, *options: str) -> dict[str, Any]:
    """Run the command and return its report. Raises RuntimeError with its exit code and its last words."""
    command = [
        sys.executable,
        "-m",
        "stvsr",
        "upscale",
        str(clip),
        "-o",
        str(output),
        "--overwrite",
        "--json",
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    return dict(json.loads(done.stdout))
