"""Import the weights of others as bundles: networks of one image that spandrel knows, RIFE, and ONNX files."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..engine.contract.bundle import file_sha256
from ..engine.contract.errors import BackendError, ExportError, RequestError
from ..engine.contract.manifest import LARGEST_PX
from ..training.checkpoints import load_official, read_state_dict
from ..training.networks.registry import NetworkEntry, find_network
from ..training.networks.rife import RIFE, find_config
from .exporter import export_bundle
from .halo import Tiling, measure_tiling
from .image_network import ImageNetwork, find_image_network, short_reason, with_grid
from .image_onnx import ONNX, OnnxOptions, import_onnx, read_onnx

_UNKNOWN = "unknown"
# Steps of size at which networks are traced, in this order: those that attend inside windows need multiples of them.
_GRIDS = (1, 16, 64)


@dataclass(frozen=True)
class ImportOptions:
    """Facts about a network that its file lacks; None is found by trial, or unknown."""

    licence: str | None = None  # of the weights
    source: str | None = None  # where they come from, such as an address
    halo_px: int | None = None  # for tiles; None: measured
    flow_scale: float | None = None  # of RIFE
    onnx: OnnxOptions = OnnxOptions()  # noqa: RUF009 - frozen


def import_weights(path: Path, folder: Path, options: ImportOptions, overwrite: bool = False) -> list[str]:
    """Write a bundle with the network of a file to `folder`, and return notes for the user.

    The graphs are compared with the original at sizes that were not traced. Raises CheckpointError for a file that is
    no checkpoint or of an unknown network, RequestError for a network that does not enlarge frames and for options
    without an effect, BackendError if a package is missing, and ExportError if the graphs differ from the original.
    """
    notes = [
        f"The {name} of the weights is recorded as '{_UNKNOWN}': pass --{name} to record it."
        for name, value in (("licence", options.licence), ("source", options.source))
        if value is None
    ]
    if options.halo_px is not None and not 0 <= options.halo_px <= LARGEST_PX:
        raise RequestError(f"A halo of {options.halo_px} pixels is impossible: give 0 to {LARGEST_PX}.")
    if path.suffix.lower() == ONNX:
        _refuse({"--flow-scale": options.flow_scale}, "an ONNX file")
        graph = read_onnx(path)
        record = _record(path, options)
        return notes + import_onnx(
            graph, path, folder, options.onnx, record, options.licence or _UNKNOWN, options.halo_px, overwrite
        )
    given = {"--scale": options.onnx.scale, "--range": options.onnx.range, "--layout": options.onnx.layout}
    _refuse(given, "weights, which show them")
    state = read_state_dict(path)
    record = _record(path, options)
    if (config := find_config(state)) is not None:
        _refuse({"--halo": options.halo_px}, "RIFE, which sees whole frames")
        entry = find_network("rife")
        network = RIFE(replace(config, flow_scale=options.flow_scale or 1.0)).eval()
        load_official(network, state)
        export_bundle(_entry(replace(entry, config=network.config), options), network, folder, record, None, overwrite)
        return notes
    _refuse({"--flow-scale": options.flow_scale}, "a network of single images")
    found, image_network = find_image_network(state, path)
    notes += _export_image_network(_entry(found, options), image_network, folder, record, options.halo_px, overwrite)
    return notes


def _export_image_network(
    entry: NetworkEntry,
    network: ImageNetwork,
    folder: Path,
    record: dict[str, Any],
    halo_px: int | None,
    overwrite: bool,
) -> list[str]:
    """Export a network at the first grid of sizes at which it can be traced, and return notes."""
    tiling = _measured(network) if halo_px is None else Tiling(halo_px, network.size.multiple_of)
    network = with_grid(network, tiling.step_px)
    failures: list[Exception] = []
    for grid in _GRIDS:
        tried = with_grid(network, grid)
        if failures and tried.size == network.size:
            continue
        tried.halo_px = tiling.halo_px
        try:
            export_bundle(entry, tried, folder, record, None, overwrite)
        except (RequestError, BackendError, OSError, MemoryError):
            raise
        except Exception as error:  # the tracer raises almost any kind; graphs for some sizes alone fail or differ
            failures.append(error)
            continue
        if tried.halo_px is not None:
            return []
        return [
            f"{entry.name} sees more of the frame than tiles can overlap by, so that frames are never cut: large ones"
            " take much memory. Pass --halo PIXELS to cut them anyway."
        ]
    reason = short_reason(failures[-1])
    raise ExportError(
        f"{entry.name} cannot be traced at sizes that are free ({reason}): export it to ONNX with its own program, and"
        " import that file."
    ) from failures[0]


def _measured(network: ImageNetwork) -> Tiling:
    size = network.size
    with torch.no_grad(), suppress(RuntimeError):  # of a network that does not take the sizes of the trial
        return measure_tiling(
            lambda frames: network(torch.from_numpy(frames)[:, None])[:, 0].numpy(),
            network.config.scale,
            size.multiple_of,
            size.minimum,
        )
    return Tiling(None, size.multiple_of)


def _entry(entry: NetworkEntry, options: ImportOptions) -> NetworkEntry:
    return replace(entry, licence=options.licence or _UNKNOWN)


def _record(path: Path, options: ImportOptions) -> dict[str, Any]:
    """Return the manifest's record of an imported file."""
    return {"imported": {"file": path.name, "sha256": file_sha256(path), "source": options.source or _UNKNOWN}}


def _refuse(options: Mapping[str, object], subject: str) -> None:
    """Raise RequestError for options that were given and have no effect."""
    if given := [name for name, value in options.items() if value is not None]:
        verb, pronoun = ("has", "it") if len(given) == 1 else ("have", "them")
        raise RequestError(f"{' and '.join(given)} {verb} no effect on {subject}: leave {pronoun} out.")
