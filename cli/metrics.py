"""The option that names further metrics, and what measures them."""

from typing import TYPE_CHECKING, Annotated

import typer

from ..engine.contract.errors import RequestError
from .terminal import training_extra

if TYPE_CHECKING:
    from ..engine.contract.further_metrics import FurtherMetric

MetricsOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Further metrics, with commas between: vmaf (by a program ffmpeg with libvmaf), lpips (by PyTorch).",
        show_default="PSNR and SSIM alone",
    ),
]


def find_metrics(names: str | None) -> "tuple[FurtherMetric, ...]":
    """Return the metrics that an option names. Raises RequestError or BackendError for one that is missing here."""
    from ..engine.contract.further_metrics import FurtherMetric

    found = []
    for name in dict.fromkeys([] if names is None else names.split(",")):
        if name == "vmaf":
            from ..engine.contract.vmaf import Vmaf, find_program

            find_program()
            found.append(FurtherMetric(name, Vmaf))
        elif name == "lpips":
            with training_extra():
                from ..training.lpips import Lpips, read_weights

                read_weights()
            found.append(FurtherMetric(name, Lpips))
        else:
            raise RequestError(f"Unknown metric '{name}': use vmaf, lpips or both with a comma between.")
    return tuple(found)
