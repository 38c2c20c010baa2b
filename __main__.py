"""``python -m stvsr`` is the same as ``stvsr``."""

import os
import signal
from types import FrameType


def _end(number: int, frame: FrameType | None) -> None:
    """End the process at once: nothing is open or written while the command line is imported."""
    os.write(2, b"Interrupted: nothing was written.\n")
    os._exit(128 + number)


def main() -> None:
    """Run the command line, and obey signals from the beginning: its imports take a part of a second."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    from .cli.app import main as run
    from .engine.contract.interrupts import SIGNALS, catch_signals

    catch_signals()
    try:
        run()
    finally:
        for number in SIGNALS:  # all is said and done; Python would restore the handlers that kill
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
