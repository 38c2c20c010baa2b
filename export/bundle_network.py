"""Between a bundle and PyTorch: load the network that a bundle contains, and write adapted weights into its graphs."""

import copy
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..engine.contract.bundle import Bundle
from ..engine.contract.errors import BundleError, RequestError
from ..engine.contract.manifest import DoubledWindow, FixedFactors, Role, SlidingWindow
from ..engine.contract.picture import to_float
from ..engine.contract.weights import edit_graphs, read_weights, replace_weights
from ..engine.contract.windows import InputFrame, window_numbers
from ..engine.pipeline.upscaler import Upscaler
from ..training.adapt.restore import FREE_SCALE, Restore, pad_frames, window_inputs
from ..training.checkpoints import build_network
from ..training.data import Flow
from ..training.networks.base import Network
from ..training.networks.registry import find_network
from .parity import Example, measure_parity, pair_examples

_PARITY_PX = 64  # largest rows and columns of the window on which graphs are compared with PyTorch
_PARITY_FRAMES = 4  # in the window of a network that takes any number of frames
_PARITY_TIME, _PARITY_SCALE, _PARITY_FACTORS = 0.375, 2.3, (4, 3)  # for networks that take any


def load_network(bundle: Bundle) -> Network:
    """Build the PyTorch network that a bundle's graphs compute, with their weights.

    Raises BundleError if this version of stvsr does not have the network or does not accept its configuration, or if
    the graphs lack its weights.
    """
    architecture = bundle.manifest.architecture
    try:
        entry = find_network(architecture.name)
    except RequestError as error:
        raise BundleError(
            f"{bundle.folder} contains the network '{architecture.name}', which this version of stvsr does not have:"
            " choose another bundle."
        ) from error
    try:
        network = build_network(replace(entry, config=type(entry.config)(**architecture.config)))
    except (RequestError, TypeError) as error:
        raise BundleError(
            f"The configuration of '{architecture.name}' in the manifest of {bundle.folder} is not valid"
            f" ({error.__cause__ or error}): export the bundle again."
        ) from error
    stored = _stored_weights(bundle)
    # Weights that no graph reads are not stored: counters of batch normalization, idle layers of official checkpoints.
    own = {name: value for name, value in network.state_dict().items() if name in stored}
    wrong = [name for name, value in own.items() if tuple(value.shape) != stored[name].shape]
    if wrong or not own:
        reason = f"{wrong[0]} has another shape" if wrong else "none has the name of one of the network"
        raise BundleError(
            f"The weights of {bundle.folder} do not fit the configuration in its manifest ({reason}): export the bundle"
            " again."
        )
    network.load_state_dict({name: torch.from_numpy(stored[name].copy()) for name in own}, strict=False)
    return network.eval()


def changed_weights(network: Network, weights: Mapping[str, Tensor], bundle: Bundle) -> dict[str, np.ndarray]:
    """Return those of a network's new weights that differ from its own, by their names in the bundle's graphs.

    `weights` is a state dict of the network. A layer that is used twice has two names in the state dict and one in a
    graph. Weights of the network that no graph reads, such as the counters of batch normalization, are left out.
    """
    stored, own = _stored_weights(bundle), network.state_dict(keep_vars=True)
    names = {id(own[name]): name for name in own if name in stored}
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
    """Write a copy of a bundle with adapted weights to the folder `out`, and return it.

    `network` is the network before its adaptation, and `weights` its adapted state dict. The graphs are first compared
    with PyTorch on a window of the clip `frames`, (N, 3, h, w) in [0, 1]; `flow` computes its optical flow. Raises
    ExportError if they differ, and otherwise as `replace_weights` does; then nothing is written.
    """
    changed = changed_weights(network, weights, bundle)
    adapted = copy.deepcopy(network)
    adapted.load_state_dict(dict(weights))
    parity = check_parity(adapted, bundle, frames, flow, edit_graphs(bundle, changed))
    # Adapted weights differ little from the original ones, so their loss in lower precisions is taken to be the same.
    manifest = {**_window_fields(network, bundle), "precisions": bundle.manifest.precisions}
    return replace_weights(bundle, changed, out, record, parity=parity, manifest=manifest, overwrite=overwrite)


def _window_fields(network: Network, bundle: Bundle) -> dict[str, Any]:
    """Return the manifest's fields about the input size of a network that doubles the rate; adaptation chooses it."""
    manifest = bundle.manifest
    if not (isinstance(manifest.window, DoubledWindow) and isinstance(network.window, DoubledWindow)):
        return {}
    config = manifest.architecture.config | {"coarse": network.window.coarse}
    return {
        "architecture": manifest.architecture.model_copy(update={"config": config}),
        "window": manifest.window.model_copy(update={"coarse": network.window.coarse}),
    }


def engine_restorer(upscaler: Upscaler) -> Restore:
    """Return a `Restore` that runs an open bundle: the same frames as in PyTorch, in about half the time."""

    def restore(frames: Tensor, indices: Sequence[int]) -> Iterator[Tensor]:
        space = upscaler.bundle.manifest.space
        scale = space.factors[0] if isinstance(space, FixedFactors) else FREE_SCALE
        requested, last = set(indices), len(frames) - 1
        scene = (
            InputFrame(frame.numpy(), (Fraction(0),) if index in requested else (), last=index == last)
            for index, frame in enumerate(frames.cpu())
        )
        h, w = frames.shape[-2:]
        for output in upscaler.frames(scene, (scale * h, scale * w)):
            yield torch.from_numpy(to_float(output))

    return restore


def check_parity(
    network: Network,
    bundle: Bundle,
    frames: Tensor,
    flow: Flow | None = None,
    graphs: Mapping[Role, bytes] | None = None,
) -> dict[str, float]:
    """Compare a bundle's graphs with the network on a window of a clip, (N, 3, h, w) in [0, 1], cropped to its centre.

    `graphs` replaces the bundle's graphs, for example with edited ones. Returns the largest difference, and raises
    ExportError, as `measure_parity` does.
    """
    network = network.cpu().eval()
    files: dict[Role, Path | bytes] = {graph.role: bundle.path(graph.role) for graph in bundle.manifest.graphs}
    return measure_parity(
        network,
        {**files, **(graphs or {})},
        _parity_examples(network, frames.cpu(), flow, set(files)),
        subject=f"The graphs of {bundle.folder}",
        remedy="export the bundle again",
    )


def _parity_examples(network: Network, frames: Tensor, flow: Flow | None, roles: Set[Role]) -> list[Example]:
    """Return inputs for a window of a clip, for each graph that returns frames.

    A sliding window is the one around the middle frame; other windows start at the first frame.
    """
    window, count = network.window, len(frames)
    if isinstance(window, SlidingWindow):
        indices = window_numbers(window, count // 2, count - 1)
    else:
        length = _PARITY_FRAMES if window.kind == "doubled" else window.frames
        indices = [min(index, count - 1) for index in range(length)]
    top, left = (max(0, (n - _PARITY_PX) // 2) for n in frames.shape[-2:])
    crop = pad_frames(network, frames[indices, :, top : top + _PARITY_PX, left : left + _PARITY_PX])
    names = ["frames", *(spec.name for spec in network.flows), "time"]
    inputs = dict(zip(names, window_inputs(network, crop, flow, torch.tensor(_PARITY_TIME)), strict=False))
    if window.kind != "pair":
        return [Example("network", inputs)]
    return pair_examples(inputs, roles, _PARITY_SCALE, _PARITY_FACTORS)


def _stored_weights(bundle: Bundle) -> dict[str, np.ndarray]:
    """Return all weights of a bundle's graphs, by name."""
    weights: dict[str, np.ndarray] = {}
    for graph in bundle.manifest.graphs:
        weights |= read_weights(bundle.path(graph.role).read_bytes())
    return weights
