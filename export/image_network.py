"""Networks of a single image, by others: found by `spandrel` from the names and shapes of their weights."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..engine.contract.errors import BackendError, CheckpointError, RequestError
from ..engine.contract.manifest import FixedFactors, SizeConstraint, SlidingWindow
from ..training.networks.base import Network
from ..training.networks.registry import NetworkEntry

_CHANNELS = 3
_REASON = 160  # characters
_LEAST_PX = 2
_MINIMA_PX = (8, 16, 32, 48, 64, 128)  # smallest sides that are tried, after the declared one
_TRIED_PX = 48
_AGREEMENT = 1e-4  # with spandrel's own call

Call = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True)
class ImageNetworkConfig:
    """Facts about a network by spandrel, for the manifest."""

    tags: tuple[str, ...] = ()  # of its size, such as "64nf"
    scale: int = 4


class ImageNetwork(Network):
    """A network that turns one image into one image, as a window of a single frame.

    `grid` is a step of sizes beside the network's own: a network that pads inside itself is traced only at sizes that
    it need not pad. `call` runs the model on an image; some models return more than an image, or in another range.
    """

    def __init__(
        self, model: nn.Module, call: Call, config: ImageNetworkConfig, size: SizeConstraint, grid: int = 1
    ) -> None:
        super().__init__()
        self.config = config
        self.model = model
        self.call = call
        self.window = SlidingWindow(frames=1, padding="replicate")
        self.space = FixedFactors(factors=(config.scale,))
        self.size = SizeConstraint(minimum=size.minimum, multiple_of=math.lcm(grid, size.multiple_of))

    def forward(self, frames: Tensor) -> Tensor:
        """`(B, 1, 3, h, w)` in [0, 1] -> `(B, 1, 3, s * h, s * w)`, not clamped"""
        return self.call(self.model, frames[:, 0].clone()).unsqueeze(1)  # some models write into their input


def find_image_network(state: Mapping[str, Tensor], path: object) -> tuple[NetworkEntry, ImageNetwork]:
    """Return the network that a state dict belongs to, with its weights, and an entry for the exporter.

    Raises BackendError if spandrel is missing, CheckpointError if it does not know the network, and RequestError if
    the network is not one from a color image to a larger or equal one. `path` names the file in errors.
    """
    spandrel = _spandrel()
    try:
        found = spandrel.ModelLoader().load_from_state_dict(dict(state))
    except spandrel.UnsupportedModelError as error:
        raise CheckpointError(
            f"The weights in {path} belong to no network that spandrel or stvsr knows: choose weights of a network that"
            " enlarges images, or export the network to ONNX."
        ) from error
    except Exception as error:  # the state dict of a known network with wrong shapes raises almost any kind
        reason = short_reason(error)
        raise CheckpointError(
            f"The weights in {path} look like those of a known network and do not fit it ({reason}): download the file"
            " again, or choose another one."
        ) from error
    _check(spandrel, found, path)
    requirements = found.size_requirements
    size = SizeConstraint(minimum=max(_LEAST_PX, requirements.minimum), multiple_of=requirements.multiple_of)
    config = ImageNetworkConfig(tuple(found.tags), found.scale)
    call: Call = getattr(found, "_call_fn", lambda model, image: model(image))  # `_try` compares it with spandrel's own
    network = ImageNetwork(found.model.cpu().float().eval(), call, config, size)
    network.size = _accepted(network, path)
    _try(network, found, path)
    _settle(network)
    name = found.architecture.id
    return NetworkEntry(name, lambda _: network, config, f"{found.architecture.name}, by spandrel"), network


def with_grid(network: ImageNetwork, grid: int) -> ImageNetwork:
    """Return a network with the same weights whose sizes are also multiples of `grid`."""
    return ImageNetwork(network.model, network.call, network.config, network.size, grid).eval()


def short_reason(error: Exception) -> str:
    """Return the start of the first line of an error, for a sentence about it."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line[:_REASON].rstrip(" .:")


def _spandrel() -> Any:
    try:
        import spandrel
    except ModuleNotFoundError as error:
        raise BackendError(
            f'Importing PyTorch weights needs {error.name}, which is not installed: pip install "stvsr[import]".'
        ) from error
    except (ImportError, RuntimeError, OSError) as error:
        reason = short_reason(error)
        raise BackendError(
            f"spandrel cannot be loaded ({reason}): install the torchvision that belongs to this PyTorch."
        ) from error
    return spandrel


def _check(spandrel: Any, found: Any, path: object) -> None:
    """Raise RequestError unless a network turns a color image into one of the same or a larger size."""
    name = found.architecture.name
    if not isinstance(found, spandrel.ImageModelDescriptor) or found.purpose not in ("SR", "Restoration"):
        raise RequestError(
            f"{path} contains {name}, a network for {found.purpose}, and no network that enlarges or restores whole"
            " frames: choose another one."
        )
    if (channels := (found.input_channels, found.output_channels)) != (_CHANNELS, _CHANNELS):
        raise RequestError(
            f"{path} contains a {name} from {channels[0]} to {channels[1]} channels, and frames have {_CHANNELS}:"
            " choose a network for RGB images."
        )
    if found.size_requirements.square:
        raise RequestError(f"{path} contains a {name} for square images alone: choose a network for any size.")


def _settle(network: ImageNetwork) -> None:
    """Keep the weights that SPAN computes anew from others in every run: PyTorch crashes where it traces that."""
    for module in network.model.modules():
        if callable(getattr(module, "update_params", None)):
            module.update_params = lambda: None  # type: ignore[assignment]  # a method of one object


@torch.no_grad()
def _accepted(network: ImageNetwork, path: object) -> SizeConstraint:
    """Return the sizes that a network accepts: from its declared minimum on, or from a larger one that it needs."""
    for least in (network.size.minimum, *_MINIMA_PX):
        side = network.size.padded(least)
        try:
            network(torch.full((1, 1, _CHANNELS, side, side), 0.5))
        except RuntimeError as error:
            failure = error
            continue
        return SizeConstraint(minimum=side, multiple_of=network.size.multiple_of)
    reason = short_reason(failure)
    raise RequestError(f"The network in {path} does not run on images ({reason}): choose another one.") from failure


@torch.no_grad()
def _try(network: ImageNetwork, found: Any, path: object) -> None:
    """Raise RequestError unless the network runs as spandrel runs it, and returns an image of the declared size."""
    side = network.size.padded(_TRIED_PX)
    image = torch.rand(1, _CHANNELS, side, side, generator=torch.Generator().manual_seed(0))
    output = network(image[:, None])[:, 0]
    expected = (1, _CHANNELS, side * network.config.scale, side * network.config.scale)
    if tuple(output.shape) != expected:
        raise RequestError(
            f"The network in {path} makes an output of shape {tuple(output.shape)} where {expected} is expected: it is"
            " no network that enlarges images."
        )
    if not torch.isfinite(output).all():
        raise RequestError(f"The network in {path} computes values that are not finite numbers: choose other weights.")
    if float((output.clamp(0, 1) - found(image.clone())).abs().max()) > _AGREEMENT:
        raise BackendError("This version of spandrel runs networks in another way than stvsr: install spandrel 0.4.")
