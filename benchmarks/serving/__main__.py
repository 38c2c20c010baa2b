"""Measure the server, as JSON lines: `python -m benchmarks.serving PART`.

frames    POST /v1/frames of two 64x48 frames, one client: milliseconds beside the time of the session
streams   live streams of 64x48 frames, 1 to 8 clients at once: frames per second, alone and in batches
jobs      1 and 8 clients that send one clip after another: frames per second, processor time over that of a bare run,
          milliseconds of small requests beside them, memory of the server's process, and the share of a job's time
          after which its preview begins
kills     8 clients while a worker is killed, and 3 while the server is: results with the pictures of a quiet run
resume    `stvsr upscale --resume` that is killed at random moments: equal pictures, and the size of the file
soak      4 clients for an hour while workers are killed at random: jobs, memory and descriptors
"""

import argparse
from collections.abc import Callable

from ..command_line import add_out, add_threads, given_command, new_parser
from .frames import frames, streams
from .jobs import jobs, kills, resume, soak

PARTS: dict[str, Callable[[argparse.Namespace, str], None]] = {
    "frames": frames,
    "streams": streams,
    "jobs": jobs,
    "kills": kills,
    "resume": resume,
    "soak": soak,
}


def main() -> None:
    """Run the command line."""
    parser = new_parser("serving", __doc__)
    parser.add_argument("part", choices=list(PARTS))
    add_out(parser)
    add_threads(parser)
    parser.add_argument("--runs", type=int, default=3, help="jobs of each client; requests of frames: 50 times as many")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement of streams")
    parser.add_argument("--rounds", type=int, default=20, help="runs that are killed and resumed")
    parser.add_argument("--soak-seconds", type=float, default=3600)
    parser.add_argument("--kill-seconds", type=float, default=30, help="between the ends of two workers, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    arguments = parser.parse_args()
    PARTS[arguments.part](arguments, given_command("serving"))


if __name__ == "__main__":
    main()
