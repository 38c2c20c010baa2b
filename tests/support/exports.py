"""Bundles of the networks of the list, each exported once in a test run. Tests must not change them."""

import functools
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from stvsr.engine.contract.atomic import locked
from stvsr.engine.contract.bundle import Bundle
from stvsr.export.exporter import export_bundle
from stvsr.training.networks.base import Network
from stvsr.training.networks.registry import NETWORKS, find_network

from tests.conftest import EXPORTS
from tests.support.procedural import filled

# Networks of a pair, of two graphs and more. Those that are shipped: tests/test_shipped.py.
_PAIRS = ("fourier-s", "videoinr-s", "videoinr", "rife", "rife-s")
SMALL = [entry.name for entry in NETWORKS if entry.name.endswith("-s") and entry.name not in _PAIRS]
QUICK = ("edvr-s", "dtsr-s", "adavsr-spatial-s")  # exported in less than ten seconds
FULL = [entry.name for entry in NETWORKS if not entry.name.endswith("-s") and entry.name not in _PAIRS]


def by_time(names: Iterable[str]) -> list[object]:
    """Return names of networks as parameters: most compact ones are slow, those of the papers' sizes long."""
    slow, long = pytest.mark.slow, pytest.mark.long
    marks = {name: () if name in QUICK else slow if name.endswith("-s") else (slow, long) for name in names}
    return [pytest.param(name, marks=marks[name]) for name in names]


@functools.cache
def exported(name: str) -> tuple[Network, Bundle]:
    """Return a network in which every layer has an effect, and its bundle."""
    entry = find_network(name)
    config = entry.config
    if name.startswith(("zsm", "tmnet")):  # the graph of two frames is half as long as that of four
        config = replace(config, frames=2)
    network = filled(entry.build(config), gain=0.6, offset_gain=8.0)
    folder = Path(os.environ[EXPORTS], name)
    (lock := folder.with_suffix(".lock")).touch()
    with locked(lock):  # the worker that needs a bundle first exports it for all
        return network, Bundle.load(folder if folder.exists() else export_bundle(entry, network, folder))
