"""The base class of every network: the contract between networks and the code that trains, exports and runs them."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ...engine.contract.manifest import (
    ContinuousSpace,
    ContinuousTime,
    FixedFactors,
    FlowInput,
    SizeConstraint,
    Window,
)


class Network(nn.Module):
    """A network that turns a window of frames into output frames.

    The attributes below describe the network to training, to export, which writes them into the bundle's manifest,
    and through the manifest to the engine.

    `forward` takes, in this order:

    - the frames, `(B, N, 3, h, w)`, RGB in [0, 1]. N is `window.frames`; run and doubled windows accept other numbers
      from 2 on. h and w satisfy `size`.
    - for each entry of `flows`, the optical flows of its P frame pairs, `(B, P, 2, h, w)`, (dx, dy) in input pixels.
    - if `time` is `ContinuousTime`, the time of the new frames, `(B,)`, from 0 (the earlier input frame) to 1.

    It returns frames `(B, M, 3, s * h, s * w)`, not clamped to [0, 1]. s is the factor of `space`, and M is 2N - 1 for
    a run, 1 for a sliding window and 2N for a doubled window.

    A network with a `PairWindow` is split for export, so that one encoding serves many times and target sizes:

    - `encode(frames)` returns a tuple of feature maps, and `feature_names` names them in the same order.
    - `decode(*features, time, y, x)` returns one frame, `(B, 3, Hout, Wout)`, at times `(B,)`; `y`, `(Hout,)`, and `x`,
      `(Wout,)`, are the centres of the target pixels in input pixels.
    - A network with `refined_names` does all that depends on the time at the input's size: `refine(*features, time)`
      returns a tuple of maps with these names, and the frame is `decode(*refined, y, x)`.
    - `decode_integer`, which a network may have, takes the same maps as `decode` and the centres of the target pixels
      inside one input pixel, and returns the frame at integer scale factors.

    Its `forward(frames, time, size)` combines them for a target `size` of (height, width) and returns one frame.

    A network with auxiliary losses also defines `loss(*inputs, truth)`, which returns `LossTerms`.
    """

    config: Any  # the frozen dataclass that the network was built from
    window: Window  # which input frames make up one call
    space: ContinuousSpace | FixedFactors = FixedFactors(factors=(4,))  # output size over input size
    time: ContinuousTime | FixedFactors = FixedFactors(factors=(1,))  # output frame rate over input frame rate
    feature_names: tuple[str, ...] = ()  # of the maps that `encode` returns
    refined_names: tuple[str, ...] = ()  # of the maps that `refine` returns; none: the decoder takes the time itself
    flows: tuple[FlowInput, ...] = ()  # optical flows that the host computes, in the order of the inputs
    size: SizeConstraint = SizeConstraint(minimum=2)  # frame sizes that the network accepts, in input pixels
    halo_px: int | None = None  # input pixels around a tile that affect its core; None: the network cannot be tiled
    adapted: tuple[str, ...] = ("",)  # prefixes of the modules that adaptation to a clip may change: all

    ignored_prefixes: tuple[str, ...] = ()  # of names in official checkpoints that no layer uses
    constants: tuple[
        str, ...
    ] = ()  # names of buffers with the same value in every checkpoint; a checkpoint may omit them

    def aliases(self) -> dict[str, str]:
        """Return other names of weights in official checkpoints, each with the name in this state dict."""
        return {}

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Return output frames; the class docstring describes inputs and result."""
        raise NotImplementedError


def decode_pair(
    network: Network, features: Sequence[Tensor], time: Tensor, y: Tensor, x: Tensor, *, integer: bool = False
) -> Tensor:
    """Return the frame `(B, 3, Hout, Wout)` at times `(B,)` of a pair that `encode` turned into `features`.

    `y` and `x` are those of `decode`, or with `integer` those of `decode_integer`.
    """
    net: Any = network
    decode = net.decode_integer if integer else net.decode
    if network.refined_names:
        return decode(*net.refine(*features, time), y=y, x=x)
    return decode(*features, time=time, y=y, x=x)
