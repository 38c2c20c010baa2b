"""VideoINR for tests: its official outputs, tiny networks, and decoders with random weights."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stvsr.kernels import reference, videoinr_decoder
from stvsr.training.checkpoints import load_official
from stvsr.training.networks.ops import nearest_index, target_coordinates
from stvsr.training.networks.videoinr import VideoINR, VideoINRConfig, target_axis
from torch import nn

from tests.support.compare import assert_close_to_range
from tests.support.networks import randomize_offsets
from tests.support.procedural import videoinr_weights

FULL = "videoinr_full_procedural"
TINY = VideoINRConfig(nf=8, groups=2, front_blocks=1, back_blocks=1)
# Of the output's range; the official float32 is off its own float64 by about 1e-5 (mean) and 2e-4 (max).
BOUNDS = {"mean": 2e-5, "max": 1e-3}


class Oracle:
    """Outputs of the official network, and networks with its weights: `tested` as in its tests, `trained` as in its
    training."""

    def __init__(self, folder: Path, name: str, config: VideoINRConfig) -> None:
        self.record = json.loads((folder / f"{name}.json").read_text())
        with np.load(folder / f"{name}.npz") as arrays:
            self.arrays = dict(arrays)
        shapes = {key: tuple(entry["shape"]) for key, entry in self.record["keys"].items()}
        stored = {k.removeprefix("sd/"): torch.from_numpy(v) for k, v in self.arrays.items() if k.startswith("sd/")}
        self.weights = stored or videoinr_weights(shapes)
        self.tested, self.trained = (VideoINR(replace(config, frame_upsample=factor)).eval() for factor in (4, 1))
        for network in (self.tested, self.trained):
            load_official(network, self.weights)
        with torch.no_grad():
            self.features = {
                name: self.tested.encode(torch.from_numpy(self.arrays[f"in/{name}"]))[0] for name in ("x", "x36")
            }

    def check(self, case: str) -> None:
        """Fail unless the frames of a case agree with the official ones."""
        record = self.record["cases"][case]
        network = self.tested if record["test"] else self.trained
        features = self.features["x36" if case.startswith("x36") else "x"]
        rows, columns = record["out_shape"][2:]
        y, x = target_coordinates(features.shape[2], rows), target_coordinates(features.shape[3], columns)
        for time in record["times"]:
            with torch.no_grad():
                out = network.decode(features, torch.tensor([time]), y, x)
            assert_close_to_range(out, self.arrays[f"out/{case}/t{time:.6f}"], **BOUNDS)

    def check_picks(self, case: str) -> None:
        """Fail unless every target pixel of a case is decoded from the same input pixel as in the official code."""
        features = self.features["x36" if case.startswith("x36") else "x"]
        for axis, n_in, n_out in zip(
            ("row", "col"), features.shape[2:], self.record["cases"][case]["out_shape"][2:], strict=True
        ):
            position = self.tested.nearest_position(target_axis(target_coordinates(n_in, n_out), n_in), n_in)
            np.testing.assert_array_equal(nearest_index(position, n_in), self.arrays[f"nearest/{case}/{axis}"])


def randomize_flows(network: VideoINR, std: float) -> None:
    """Draw the last weight of the flows' SIREN anew; flows are about 10 * std pixels long."""
    last = network.flow_imnet.net[-1]
    assert isinstance(last, nn.Linear)
    nn.init.normal_(last.weight, std=std)


def tiny(seed: int = 0, **changes: Any) -> VideoINR:
    """Return a tiny network whose offsets and flows are about a pixel; `changes` are those of its configuration."""
    torch.manual_seed(seed)
    network = VideoINR(replace(TINY, **changes)).eval()
    randomize_offsets(network)
    randomize_flows(network, 0.2)
    return network


class DecoderCase:
    """A decoder with random weights, features, times and a target.

    official: official sampling. factor: enlargement of the frames before they are read. nf: channels of the target
    features. size, target: rows and columns of the features and of the target. flow_px: about how far flows lead. part:
    the rows and columns of the target to decode.
    """

    def __init__(
        self,
        official: bool = True,
        factor: int = 4,
        *,
        nf: int = 8,
        batch: int = 2,
        size: tuple[int, int] = (5, 7),
        target: tuple[int, int] = (13, 17),
        flow_px: float = 1.0,
        part: tuple[slice, slice] = (slice(None), slice(None)),
    ) -> None:
        torch.manual_seed(0)
        self.network = VideoINR(replace(TINY, nf=nf, official_sampling=official, frame_upsample=factor)).eval()
        randomize_flows(self.network, 0.1 * flow_px)
        self.official, self.factor = official, factor
        self.state = {name: value.numpy() for name, value in self.network.state_dict().items() if "imnet" in name}
        rng = np.random.default_rng(0)
        self.features = rng.normal(size=(batch, 3 * nf + 6, *size)).astype(np.float32)
        self.features[:, -6:] = rng.random((batch, 6, *size))
        self.time = np.linspace(0.2, 0.9, batch, dtype=np.float32)
        positions = [target_coordinates(n, m).numpy() for n, m in zip(size, target, strict=True)]
        self.y, self.x = (position[cut] for position, cut in zip(positions, part, strict=True))

    @property
    def axes(self) -> tuple[videoinr_decoder.TargetAxis, videoinr_decoder.TargetAxis]:
        """Rows and columns of the target, for the kernels."""
        height, width = self.features.shape[2:]
        return (
            videoinr_decoder.target_axis(self.y, height, self.official),
            videoinr_decoder.target_axis(self.x, width, self.official),
        )

    def by_network(self) -> np.ndarray:
        """Decode by the network in PyTorch."""
        arrays = (torch.from_numpy(array) for array in (self.features, self.time, self.y, self.x))
        with torch.no_grad():
            return self.network.decode(*arrays).numpy()

    def by_oracle(self, dtype: type, rounded: type = np.float32) -> np.ndarray:
        """Decode by the oracle in steps of `dtype`, from weights and features rounded to `rounded` before."""
        return reference.videoinr_decode(
            {name: value.astype(rounded) for name, value in self.state.items()},
            self.features.astype(rounded),
            self.time,
            *self.axes,
            official_sampling=self.official,
            frame_upsample=self.factor,
            dtype=dtype,
        )

    def by_kernels(self, run: Callable[..., Any], dtype: type) -> np.ndarray:
        """Decode by the kernels, where `run` runs them: `cuda_cpu.on_cpu` or `cuda_cpu.on_gpu`."""
        weights = videoinr_decoder.pack(self.state, dtype, official_sampling=self.official, frame_upsample=self.factor)

        def on_device(features: Any, time: Any) -> Any:
            asarray = np.asarray
            if not isinstance(features, np.ndarray):
                import cupy

                asarray = cupy.asarray
            uploaded = weights.to(asarray)
            encoded = videoinr_decoder.prepare(features, uploaded)
            return videoinr_decoder.decode(encoded, uploaded, time, *(axis.to(asarray) for axis in self.axes))

        return run(on_device, self.features.astype(dtype), self.time)


DECODER_CASES: dict[str, dict[str, Any]] = {
    "official": {},
    "corrected": {"official": False},
    "frames not enlarged": {"official": False, "factor": 1},
    "far flows": {"flow_px": 40.0},
    "far flows, corrected": {"official": False, "flow_px": 40.0, "factor": 2},
    "smaller than the input": {"size": (9, 6), "target": (4, 5)},
    "one pixel": {"size": (1, 1), "target": (3, 2), "batch": 1},
    "part of the target": {"part": (slice(3, 10), slice(5, None)), "flow_px": 2.0},
}
# Of the output's range; far flows magnify the rounding of float32.
DECODER_BOUNDS = {"mean": 3e-6, "max": 1e-4}
