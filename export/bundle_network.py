"""Adaptation's two ends in a bundle: the PyTorch network that it holds, and the new weights back in its graphs."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..engine.backends.session import open_session
from ..engine.contract.bundle import Bundle
from ..engine.contract.errors import BundleError, ExportError
from ..engine.contract.manifest import DoubledWindow, FixedFactors, Role, SlidingWindow
from ..engine.contract.picture import to_float
from ..engine.contract.weights import edit_graphs, read_weights, replace_weights
from ..engine.contract.windows import InputFrame, window_numbers
from ..engine.pipeline.upscaler import Upscaler
from ..training.adapt.restore import FREE_SCALE, Restore, pad_frames, window_inputs
from ..training.data import Flow
from ..training.networks.base import Network
from ..training.networks.ops import target_coordinates
from ..training.networks.registry import find_network
from .exporter import TOLERANCE, computed

_PARITY_PX = 64  # most rows and columns of the window on which graphs are compared with PyTorch
_PARITY_TIME, _PARITY_SCALE = 0.375, 2.3  # of networks that take any


def network_of(bundle: Bundle) -> Network:
    """The network that a bundle's graphs compute, with their weights, to be adapted.

    Raises ``BundleError`` where this installation has no such network, or the graphs lack weights that it has.
    """
    architecture = bundle.manifest.architecture
    try:
        entry = find_network(architecture.name)
        network = entry.build(type(entry.config)(**architecture.config))
    except (KeyError, TypeError) as error:
        raise BundleError(
            f"{bundle.folder} holds '{architecture.name}', which this stvsr cannot build ({error}): export it again."
        ) from error
    held = _held(bundle)
    # What no graph reads is not held: batch normalization's counters, layers of official checkpoints that are idle.
    own = {name: value for name, value in network.state_dict().items() if name in held}
    wrong = [name for name, value in own.items() if tuple(value.shape) != held[name].shape]
    if wrong or not own:
        raise BundleError(
            f"The weights of {bundle.folder} ({wrong[0] if wrong else 'none by name'}) are not those of the"
            f" configuration in its manifest: export it again."
        )
    network.load_state_dict({name: torch.from_numpy(held[name].copy()) for name in own}, strict=False)
    return network.eval()


def changed_weights(network: Network, weights: Mapping[str, Tensor], bundle: Bundle) -> dict[str, np.ndarray]:
    """Which of a network's new weights differ from its own, under the names that the bundle's graphs have for them.

    A layer that is used twice has two names in the state dict and one in a graph. What the network has and no graph
    reads, as batch normalization's counters, is left out.
    """
    held, own = _held(bundle), network.state_dict(keep_vars=True)
    names = {id(own[name]): name for name in own if name in held}
    changed = {}
    for name, value in weights.items():
        if name in own and (id(own[name]) not in names or torch.equal(value.detach().cpu(), own[name].detach().cpu())):
            continue
        changed[names[id(own[name])] if name in own else name] = value.detach().cpu().numpy()
    return changed


def write_adapted(
    bundle: Bundle,
    network: Network,
    weights: Mapping[str, Tensor],
    frames: Tensor,
    out: Path,
    record: Mapping[str, Any],
    flow: Flow | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Write the bundle with a network's adapted weights; ``network`` is the one that was adapted, as it was before.

    Graphs are compared with PyTorch on a window of the clip ``frames``, (N, 3, h, w) in [0, 1], first. Raises
    ``ExportError`` where they differ, and as `replace_weights` does; then nothing is written.
    """
    changed = changed_weights(network, weights, bundle)
    adapted = copy.deepcopy(network)
    adapted.load_state_dict(dict(weights))
    parity = check_parity(adapted, bundle, frames, flow, edit_graphs(bundle, changed))
    manifest = _fed_as(network, bundle)
    return replace_weights(bundle, changed, out, record, parity=parity, manifest=manifest, overwrite=overwrite)


def _fed_as(network: Network, bundle: Bundle) -> dict[str, Any]:
    """What a manifest says of how a network that doubles the rate is fed, which adaptation chooses."""
    held = bundle.manifest
    if not (isinstance(held.window, DoubledWindow) and isinstance(network.window, DoubledWindow)):
        return {}
    config = held.architecture.config | {"coarse": network.window.coarse}
    return {
        "architecture": held.architecture.model_copy(update={"config": config}),
        "window": held.window.model_copy(update={"coarse": network.window.coarse}),
    }


def restoring_with(upscaler: Upscaler) -> Restore:
    """An open bundle, as what restores a clip for adaptation: the same frames as PyTorch's, in about half the time."""

    def restore(frames: Tensor, places: Sequence[int]) -> Iterator[Tensor]:
        space = upscaler.bundle.manifest.space
        scale = space.factors[0] if isinstance(space, FixedFactors) else FREE_SCALE
        wanted, last = set(places), len(frames) - 1
        scene = (
            InputFrame(frame.numpy(), (Fraction(0),) if place in wanted else (), last=place == last)
            for place, frame in enumerate(frames.cpu())
        )
        h, w = frames.shape[-2:]
        for made in upscaler.frames(scene, (scale * h, scale * w)):
            yield torch.from_numpy(to_float(made))

    return restore


def check_parity(
    network: Network,
    bundle: Bundle,
    frames: Tensor,
    flow: Flow | None = None,
    graphs: Mapping[Role, bytes] | None = None,
) -> dict[str, float]:
    """Runs a bundle's graphs beside the network on a window of a clip (N, 3, h, w) in [0, 1], cut to its middle.

    ``graphs`` are those of the bundle with other weights. Returns the largest difference, and where that is above
    `TOLERANCE`, the network's own error in float32. Raises ``ExportError`` as `check_bundle` does.
    """
    network = network.cpu().eval()
    inputs = _window(network, frames.cpu(), flow)
    files: dict[Role, Any] = {g.role: bundle.path(g.role) for g in bundle.manifest.graphs} | dict(graphs or {})
    with ExitStack() as opened:
        sessions = {role: opened.enter_context(open_session(file, device="cpu")) for role, file in files.items()}
        given = {name: value.numpy() for name, value in inputs.items()}
        if "network" in sessions:
            found = sessions["network"].run(given)["upscaled"]
        else:
            features = sessions["encoder"].run({"frames": given.pop("frames")})
            found = sessions["decoder"].run({**features, **given})["frame"]
    expected = computed(network, inputs)
    parity = {"difference": float(np.abs(found - expected).max())}
    if not parity["difference"] <= TOLERANCE:
        precise = computed(copy.deepcopy(network).double(), inputs)
        parity["float32_error"] = float(np.abs(expected - precise).max())
        if not parity["difference"] <= 2 * parity["float32_error"]:
            raise ExportError(
                f"The graphs of {bundle.folder} differ from {type(network).__name__} in PyTorch by"
                f" {parity['difference']:.2e}, above the {TOLERANCE:.0e} that is allowed: export the bundle again."
            )
    return parity


def _window(network: Network, frames: Tensor, flow: Flow | None) -> dict[str, Tensor]:
    """What the network takes of the window around the middle of a clip, by the names of its graphs' inputs."""
    window, count = network.window, len(frames)
    if isinstance(window, SlidingWindow):
        places = window_numbers(window, count // 2, count - 1)
    else:
        places = [min(place, count - 1) for place in range(max(window.frames, 2) if window.kind != "doubled" else 4)]
    top, left = (max(0, (n - _PARITY_PX) // 2) for n in frames.shape[-2:])
    shown = pad_frames(network, frames[places, :, top : top + _PARITY_PX, left : left + _PARITY_PX])
    names = ["frames", *(flow.name for flow in network.flows), "time"]
    inputs = dict(zip(names, window_inputs(network, shown, flow, torch.tensor(_PARITY_TIME)), strict=False))
    if window.kind == "pair":
        for name, n in zip("yx", shown.shape[-2:], strict=True):
            inputs[name] = target_coordinates(n, round(n * _PARITY_SCALE))
    return inputs


def _held(bundle: Bundle) -> dict[str, np.ndarray]:
    """All weights of a bundle's graphs, by name."""
    held: dict[str, np.ndarray] = {}
    for graph in bundle.manifest.graphs:
        held |= read_weights(bundle.path(graph.role).read_bytes())
    return held
