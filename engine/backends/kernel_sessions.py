"""Graphs that a GPU runs as kernels of stvsr, whatever computes the other graphs of a bundle."""

from collections.abc import Mapping

import numpy as np

from ..contract.bundle import Bundle
from ..contract.manifest import Precision, Role
from . import fourier_field, videoinr_decoder
from .cuda import CudaDevice
from .session import Session

# Roles by the name of the architecture.
_DECODERS: dict[str, tuple[Role, ...]] = {
    videoinr_decoder.ARCHITECTURE: ("decoder",),
    fourier_field.ARCHITECTURE: ("decoder", "integer_decoder"),
}


def has_kernel(bundle: Bundle, role: Role) -> bool:
    """Return whether a GPU runs a graph as one of stvsr's own kernels, for any size."""
    return role in _DECODERS.get(bundle.manifest.architecture.name, ())


def is_field(bundle: Bundle, role: Role) -> bool:
    """Return whether the session of a graph is a `FourierFieldSession`, which renders pictures too."""
    return bundle.manifest.architecture.name == fourier_field.ARCHITECTURE and has_kernel(bundle, role)


def open_kernel_session(
    bundle: Bundle, role: Role, device: CudaDevice, precision: Precision, weights: Mapping[str, np.ndarray]
) -> Session:
    """Open the session of a graph that `has_kernel`; `weights` replace those of the graph, by name."""
    if bundle.manifest.architecture.name == videoinr_decoder.ARCHITECTURE:
        return videoinr_decoder.VideoInrDecoderSession(bundle, device, precision, weights)
    return fourier_field.FourierFieldSession(bundle, role, device, weights)
