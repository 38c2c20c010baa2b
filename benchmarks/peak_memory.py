"""Print the peak memory of a process that upscales with the engine: `python -m benchmarks.peak_memory BUNDLE`.

The process upscales a few frames of 64x64 pixels on the CPU, and must not import PyTorch.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np
from stvsr import Backend, Bundle, one_scene
from stvsr.engine.pipeline.chain import Chain
from stvsr.engine.pipeline.plan import default_factor, default_scale, plan_passes
from stvsr.engine.pipeline.report import peak_memory_bytes

from .command_line import add_threads, new_parser

SIDE_PX = 64
_FRAMES = 8


def upscale_noise(bundle: Bundle, threads: int) -> None:
    """Upscale a few frames of noise by the default factors of a bundle."""
    factor, side = default_factor([bundle]), round(SIDE_PX * default_scale([bundle]))
    frames = np.random.default_rng(0).random((_FRAMES, 3, SIDE_PX, SIDE_PX), np.float32)
    times = tuple(Fraction(part, factor) for part in range(factor))
    passes = plan_passes([bundle], (SIDE_PX, SIDE_PX), (side, side), factor)
    with Chain(passes, Backend(device="cpu", threads=threads)) as chain:
        for _ in chain.frames(one_scene(frames, times)):
            pass


def main() -> None:
    """Run the command line; it prints one number, in bytes."""
    parser = new_parser("peak_memory", __doc__)
    parser.add_argument("bundle", type=Path, help="folder of a bundle")
    add_threads(parser)
    arguments = parser.parse_args()
    upscale_noise(Bundle.load(arguments.bundle), arguments.threads)
    print(peak_memory_bytes())


if __name__ == "__main__":
    main()
