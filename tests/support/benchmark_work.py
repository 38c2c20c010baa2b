"""Main functions of a benchmark's process that misbehave."""

import os
import time
from multiprocessing.connection import Connection

from stvsr import Backend
from stvsr.engine.benchmark.measure import DONE, FAILED, FIGURES, Job


def misbehave(connection: Connection, backend: Backend) -> None:
    """Send a figure, and do what the name of the bundle says."""
    try:
        job: Job = connection.recv()
    except EOFError:  # the process that follows one that has died
        return
    (job.folder / "left.mp4").write_text("a file that nobody deletes")
    connection.send((FIGURES, {"fps": 2.0}))
    match job.case.bundle:
        case "dies":
            os._exit(3)
        case "hangs":
            time.sleep(600)
        case "fails":
            connection.send((FAILED, "It cannot be done."))
        case _:
            connection.send((FIGURES, {"frames": 8}))
            connection.send((DONE, None))
