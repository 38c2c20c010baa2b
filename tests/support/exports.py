"""Bundles of the networks of the list, each exported once for all tests of a run, which leave them as they are."""

import atexit
import functools
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from stvsr.engine.contract.bundle import Bundle
from stvsr.export.exporter import export_bundle
from stvsr.training.networks.base import Network
from stvsr.training.networks.registry import NETWORKS, find_network

from tests.support.procedural import filled

SMALL = [entry.name for entry in NETWORKS if entry.name.endswith("-s") and entry.name != "videoinr-s"]
FULL = [entry.name for entry in NETWORKS if not entry.name.endswith("-s") and entry.name != "videoinr"]


def made(name: str) -> Network:
    """A network whose every layer does something: none starts at zero."""
    entry = find_network(name)
    config = entry.config
    if name.startswith(("zsm", "tmnet")):  # two frames make a graph half as long as four
        config = replace(config, frames=2)
    return filled(entry.build(config), gain=0.6, offset_gain=8.0)


@functools.cache
def exported(name: str) -> tuple[Network, Bundle]:
    """Such a network and its bundle."""
    network = made(name)
    return network, Bundle.load(export_bundle(find_network(name), network, _folder() / name))


@functools.cache
def _folder() -> Path:
    folder = tempfile.mkdtemp(prefix="stvsr-exports-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
