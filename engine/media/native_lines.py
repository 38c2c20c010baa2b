"""The lines that FFmpeg and the encoders, which are libraries in C, write to standard error themselves."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import av.logging
import numpy as np  # noqa: F401 - its BLAS ends the process if memory is short, and says so if it is loaded before a block

# FFmpeg's levels, and those of SVT-AV1 by its environment variable.
_FFMPEG = {
    "debug": av.logging.VERBOSE,
    "info": av.logging.INFO,
    "warning": av.logging.WARNING,
    "error": av.logging.ERROR,
}
_SVT = {"debug": "4", "info": "3", "warning": "2", "error": "1"}
_STDERR = 2


@contextmanager
def divert_native_lines(file: Path, level: str) -> Iterator[None]:
    """Append what native code writes to standard error, from a level on, to a file for the time of a block.

    What Python writes to `sys.stderr` still gets there. `level` is debug, info, warning or error, for FFmpeg, x264 and
    SVT-AV1; x265 takes its own from its options. The descriptor belongs to the whole process, and processes that it
    starts inherit it: use it around all of a program's work, before there are threads. FFmpeg writes to the descriptor
    and not into Python's log, because its threads would wait for the interpreter, which may wait for them.
    """
    try:
        saved = os.dup(_STDERR)
    except OSError:  # a process without a stderr
        yield
        return
    python, svt = sys.stderr, os.environ.get("SVT_LOG")
    kept: TextIO | None = None
    if _descriptor(python) == _STDERR:
        python.flush()
        kept = open(saved, "w", buffering=1, encoding=python.encoding, errors=python.errors, closefd=False)  # noqa: SIM115
        sys.stderr = kept
    try:
        with open(file, "ab") as target:
            os.dup2(target.fileno(), _STDERR)
        av.logging.set_libav_level(_FFMPEG[level])
        av.logging.restore_default_callback()
        os.environ["SVT_LOG"] = _SVT[level]
        yield
    finally:
        av.logging.set_level(None)
        if svt is None:
            os.environ.pop("SVT_LOG", None)
        else:
            os.environ["SVT_LOG"] = svt
        os.dup2(saved, _STDERR)
        if kept is not None:
            kept.flush()
            if sys.stderr is kept:
                sys.stderr = python
        os.close(saved)


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError):  # a stream in memory
        return None
