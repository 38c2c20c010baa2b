"""The figures that metrics give, and how they are shown; the command line and the server read this without NumPy."""

from typing import NamedTuple


class Figure(NamedTuple):
    """A figure of a video against another one: its name for readers, and the digits that say something."""

    title: str
    digits: int


FIGURES = {
    "psnr_y_db": Figure("PSNR dB", 2),
    "ssim_y": Figure("SSIM", 4),
    "vmaf": Figure("VMAF", 2),
    "lpips": Figure("LPIPS", 4),  # of all figures the one in which less is better
}
