"""Build networks and read their weights from checkpoints: all of them, or those that fit as a start for training."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ..engine.contract.errors import CheckpointError, RequestError
from .checkpoint_files import LARGEST_CHECKPOINT, check_tensors, read_checkpoint
from .networks.base import Network
from .networks.registry import NetworkEntry, configured

_SMALL = 256  # with no larger number in its configuration, every network has less than 2 GiB of weights
_LARGEST = 4096  # of a number in a configuration
_MAX_LISTED = 5  # names in an error
_INNER_NAMES = ("params_ema", "params", "state_dict")  # the first is an average over training steps, and preferred


def build_network(entry: NetworkEntry) -> Network:
    """Build a network of the list, with initial weights. Raises RequestError if its configuration does not allow it."""
    try:
        _check_size(entry)
        return entry.build(entry.config)
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        else:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RequestError(
            f"{entry.name} cannot be built with {entry.config} ({reason}): choose other values."
        ) from error


def _check_size(entry: NetworkEntry) -> None:
    """Build a network without memory, and raise RequestError if its weights would take too much of it."""
    numbers = [value for value in vars(entry.config).values() if isinstance(value, int | float)]
    if max(numbers, default=0) <= _SMALL:
        return
    if max(numbers) > _LARGEST:
        raise RequestError(f"{entry.name} with {entry.config} is larger than every network: give at most {_LARGEST}.")
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network = entry.build(entry.config)
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > LARGEST_CHECKPOINT:
        raise RequestError(
            f"{entry.name} with {entry.config} has weights of {size / 2**30:.3g} GiB, and"
            f" {LARGEST_CHECKPOINT >> 30} are allowed: choose smaller values."
        )


def random_weights(entry: NetworkEntry, seed: int = 0) -> tuple[Network, dict[str, Any]]:
    """Build a network with the weights that training starts from, and return it with a record for the manifest."""
    torch.manual_seed(seed)
    return build_network(entry), {"untrained": True, "seed": seed}


def load_weights(
    entry: NetworkEntry, path: Path, changes: Mapping[str, str] | None = None
) -> tuple[Network, dict[str, Any]]:
    """Build a network of the list with the weights of a file: a `weights.pt` of training, or another checkpoint.

    `changes` replace fields of the configuration, as text. Returns the network, and the file's record of its training.
    Raises CheckpointError if the file cannot be read, or if its weights do not fit the network, and RequestError if
    the changes are invalid.
    """
    content = read_checkpoint(path)
    record: dict[str, Any] = {"checkpoint": path.name}
    if isinstance(content, Mapping) and {"state_dict", "config"} <= content.keys():
        try:
            entry = replace(entry, config=type(entry.config)(**content["config"]))
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"The checkpoint {path} is for another network than {entry.name} ({error}): name the network that it"
                " was trained for."
            ) from error
        others = {key: value for key, value in content.items() if key not in ("state_dict", "config")}
        record = {key: value for key, value in others.items() if _is_plain(value)}
    entry = configured(entry, changes or {})
    network = build_network(entry)
    load_official(network, read_state_dict(content) if isinstance(content, Mapping) else path)
    return network, record


def first_non_finite(weights: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first weight with values that are not finite numbers, or None."""
    return next((name for name, weight in weights.items() if not weight.isfinite().all()), None)


def _is_plain(value: object) -> bool:
    """Return whether a value of a checkpoint's record can be stored in a manifest."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def read_run(folder: Path, config: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Read `last.pt`, the state that a run resumes from.

    Raises CheckpointError if it cannot be read, and RequestError if its configuration is not `config`.
    """
    state = read_checkpoint(folder / "last.pt", device)
    if not isinstance(state, dict) or state.get("config") != config:
        raise RequestError(
            f"The folder {folder} contains a run of another configuration: name another folder, or delete it."
        )
    return state


def read_state_dict(source: str | Path | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a file or of a state dict by name, without the prefix `module.` of data-parallel training.

    The weights may be one level down, under one of the keys that official checkpoints use. Raises CheckpointError if
    the file cannot be read, or if it contains anything else than tensors by name.
    """
    content = source if isinstance(source, Mapping) else read_checkpoint(Path(source))
    name = "the state dict" if isinstance(source, Mapping) else source
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{name} contains a {type(content).__name__} and not weights by name: choose another checkpoint."
        )
    content = next((content[name] for name in _INNER_NAMES if isinstance(content.get(name), Mapping)), content)
    others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(
            f"A checkpoint contains only tensors, and these entries are none: {_listed(others)}. Choose another one."
        )
    state = {str(name).removeprefix("module."): value for name, value in content.items()}
    check_tensors(name, state)
    return state


def load_official(network: Network, source: str | Path | Mapping[str, Tensor]) -> None:
    """Load a checkpoint into a network strictly: every weight must be present with the right shape, and no other.

    Aliases of the network's weights are renamed first, and entries that nothing reads are ignored. Raises
    CheckpointError, which lists the differences.
    """
    aliases = network.aliases()
    state = {
        aliases.get(name, name): value
        for name, value in read_state_dict(source).items()
        if not name.startswith(network.ignored_prefixes)
    }
    own = network.state_dict()
    state = {name: own[name] for name in network.constants} | state
    problems = []
    if missing := [name for name in own if name not in state]:
        problems.append(f"missing: {_listed(missing)}")
    if unexpected := [name for name in state if name not in own]:
        problems.append(f"unexpected: {_listed(unexpected)}")
    wrong = [
        f"{name} is {tuple(state[name].shape)} and should be {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if wrong:
        problems.append(f"of another shape: {_listed(wrong)}")
    if problems:
        raise CheckpointError(
            f"The checkpoint does not fit this {type(network).__name__} ({'; '.join(problems)}): choose another"
            " checkpoint or configuration."
        )
    network.load_state_dict(state)


def load_matching(network: Network, source: str | Path | Mapping[str, Tensor]) -> list[str]:
    """Load those weights of a checkpoint that fit a network by name and shape; return the names of the others.

    A deeper network thus starts with the layers of a smaller one. Raises CheckpointError if no weight fits.
    """
    own, aliases = network.state_dict(), network.aliases()
    state = {aliases.get(name, name): value for name, value in read_state_dict(source).items()}
    matching = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    if not matching:
        name = "the state dict" if isinstance(source, Mapping) else source
        raise CheckpointError(
            f"No weight of {name} fits {type(network).__name__}: choose a checkpoint of the same kind of network."
        )
    network.load_state_dict(matching, strict=False)
    return [name for name in own if name not in matching and name not in network.constants]


def _listed(names: list[str]) -> str:
    """Join the first few names, and count the others."""
    listed = ", ".join(names[:_MAX_LISTED])
    more = len(names) - _MAX_LISTED
    return f"{listed} and {more} more" if more > 0 else listed
