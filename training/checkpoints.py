"""Reads checkpoints into networks: strictly, or as a start of training."""

import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..engine.contract.errors import CheckpointError
from .networks.base import Network
from .networks.registry import NetworkEntry, configured

_NAMES_SHOWN = 5
_INNER_NAMES = ("params_ema", "params", "state_dict")  # the first is the average of many steps


def _read(path: Path) -> object:
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it ends too soon"
        raise CheckpointError(f"The checkpoint {path} cannot be read as weights ({reason}).") from error


def read_state_dict(source: str | Path | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by name, of a file or of a state dict, without the `module.` that data-parallel training puts before.

    They may lie one level down, under one of the names that official checkpoints have for it.
    """
    content = source if isinstance(source, Mapping) else _read(Path(source))
    if not isinstance(content, Mapping):
        raise CheckpointError(f"A checkpoint holds weights by name, and {source} holds a {type(content).__name__}.")
    content = next((content[name] for name in _INNER_NAMES if isinstance(content.get(name), Mapping)), content)
    strangers = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if strangers:
        raise CheckpointError(f"A checkpoint holds tensors alone, and these are not: {_some(strangers)}.")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def load_official(network: Network, source: str | Path | Mapping[str, Tensor]) -> None:
    """Load an official checkpoint; every weight must be there, of the right shape, and no other.

    Other names that the network knows for a weight count as its own, and so does what nothing reads.
    """
    aliases = network.aliases()
    state = {
        aliases.get(name, name): value
        for name, value in read_state_dict(source).items()
        if not name.startswith(network.ignored)
    }
    own = network.state_dict()
    state = {name: own[name] for name in network.constants} | state
    problems = []
    if missing := [name for name in own if name not in state]:
        problems.append(f"missing: {_some(missing)}")
    if unexpected := [name for name in state if name not in own]:
        problems.append(f"unexpected: {_some(unexpected)}")
    wrong = [
        f"{name} is {tuple(state[name].shape)} and should be {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if wrong:
        problems.append(f"of another shape: {_some(wrong)}")
    if problems:
        raise CheckpointError(f"The checkpoint is not of this {type(network).__name__}; {'; '.join(problems)}.")
    network.load_state_dict(state)


def begin_with(network: Network, source: str | Path | Mapping[str, Tensor]) -> list[str]:
    """Load what a checkpoint has of a network's weights, by name and shape; returns the names of those it lacks.

    A deeper network so begins with the layers of a smaller one. Raises `CheckpointError` where nothing fits.
    """
    own, aliases = network.state_dict(), network.aliases()
    state = {aliases.get(name, name): value for name, value in read_state_dict(source).items()}
    found = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    if not found:
        raise CheckpointError(f"{source} has no weight that fits {type(network).__name__}: take one of such a network")
    network.load_state_dict(found, strict=False)
    return [name for name in own if name not in found and name not in network.constants]


def _some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def load_weights(
    entry: NetworkEntry, path: Path, changes: Mapping[str, str] | None = None
) -> tuple[Network, dict[str, Any]]:
    """A network of the list with the weights of a file: one that `stvsr train` wrote, or an official checkpoint.

    ``changes`` are of its configuration, as text. Returns the network and what the file says of its training.
    """
    content = _read(path)
    told: dict[str, Any] = {"checkpoint": path.name}
    if isinstance(content, Mapping) and {"state_dict", "config"} <= content.keys():
        try:
            entry = replace(entry, config=type(entry.config)(**content["config"]))
        except TypeError as error:
            raise CheckpointError(
                f"The checkpoint {path} is of another network than {entry.name} ({error})."
            ) from error
        told = {key: value for key, value in content.items() if key not in ("state_dict", "config")}
    entry = configured(entry, changes or {})
    network = entry.build(entry.config)
    load_official(network, read_state_dict(content) if isinstance(content, Mapping) else path)
    return network, told


def random_weights(entry: NetworkEntry, seed: int = 0) -> tuple[Network, dict[str, Any]]:
    """A network of the list as training begins with it, and what to say of its training."""
    torch.manual_seed(seed)
    return entry.build(entry.config), {"untrained": True, "seed": seed}
