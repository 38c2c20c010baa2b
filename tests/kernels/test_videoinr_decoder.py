"""VideoINR's decoder as kernels, against the oracle, and the oracle against the network."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from stvsr.kernels import reference
from stvsr.kernels import videoinr_decoder as implicit
from stvsr.training.networks.ops import nearest_index, target_coordinates
from stvsr.training.networks.videoinr import VideoINR, VideoINRConfig
from stvsr.training.networks.videoinr import target_axis as trained_axis
from test_videoinr import BOUNDS as OFFICIAL_BOUNDS
from test_videoinr import FULL, ORACLES, Oracle
from torch import nn

from tests.support import cuda_cpu
from tests.support.compare import assert_close_to_range
from tests.support.cuda_cpu import everywhere, on_cpu

Run = Callable[..., Any]
TINY = VideoINRConfig(nf=8, groups=2, front_blocks=1, back_blocks=1)
# Of the output's range; far flows make much of float32's rounding.
BOUNDS = {"mean": 3e-6, "max": 1e-4}


class Case:
    """A decoder of random weights, features, times and a target."""

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
        nn.init.normal_(self.network.flow_imnet.net[-1].weight, std=0.1 * flow_px)
        self.official, self.factor = official, factor
        self.state = {name: value.numpy() for name, value in self.network.state_dict().items() if "imnet" in name}
        rng = np.random.default_rng(0)
        self.features = rng.normal(size=(batch, 3 * nf + 6, *size)).astype(np.float32)
        self.features[:, -6:] = rng.random((batch, 6, *size))
        self.time = np.linspace(0.2, 0.9, batch, dtype=np.float32)
        places = [target_coordinates(n, m).numpy() for n, m in zip(size, target, strict=True)]
        self.y, self.x = (place[cut] for place, cut in zip(places, part, strict=True))

    @property
    def axes(self) -> tuple[implicit.TargetAxis, implicit.TargetAxis]:
        height, width = self.features.shape[2:]
        return implicit.target_axis(self.y, height, self.official), implicit.target_axis(self.x, width, self.official)

    def trained(self) -> np.ndarray:
        arrays = (torch.from_numpy(array) for array in (self.features, self.time, self.y, self.x))
        with torch.no_grad():
            return self.network.decode(*arrays).numpy()

    def expected(self, dtype: type, rounded: type = np.float32) -> np.ndarray:
        """The oracle's answer in steps of `dtype`, to weights and features that are rounded before."""
        return reference.implicit_decode(
            {name: value.astype(rounded) for name, value in self.state.items()},
            self.features.astype(rounded),
            self.time,
            *self.axes,
            official_sampling=self.official,
            frame_upsample=self.factor,
            dtype=dtype,
        )

    def decoded(self, run: Run, dtype: type) -> np.ndarray:
        weights = implicit.pack(self.state, dtype, official_sampling=self.official, frame_upsample=self.factor)

        def on_device(features: Any, time: Any) -> Any:
            asarray = np.asarray
            if not isinstance(features, np.ndarray):
                import cupy

                asarray = cupy.asarray
            there = weights.on(asarray)
            encoded = implicit.prepare(features, there)
            return implicit.decode(encoded, there, time, *(axis.on(asarray) for axis in self.axes))

        return run(on_device, self.features.astype(dtype), self.time)


CASES = {
    "official": {},
    "corrected": {"official": False},
    "frames as they are": {"official": False, "factor": 1},
    "far flows": {"flow_px": 40.0},
    "far flows, corrected": {"official": False, "flow_px": 40.0, "factor": 2},
    "smaller than the input": {"size": (9, 6), "target": (4, 5)},
    "one pixel": {"size": (1, 1), "target": (3, 2), "batch": 1},
    "a part": {"part": (slice(3, 10), slice(5, None)), "flow_px": 2.0},
}


@pytest.mark.parametrize("case", CASES)
def test_the_oracle_is_the_network(case: str) -> None:
    made = Case(**CASES[case])
    assert_close_to_range(made.trained(), made.expected(np.float64), **BOUNDS)


@pytest.mark.parametrize("official", [True, False])
def test_axes_are_those_of_the_network(official: bool) -> None:
    network = Case(official).network
    ties = 0
    for n_in in (4, 7, 16, 30):
        for n_out in (*range(2, 90), 120, 225):
            position = target_coordinates(n_in, n_out)
            made, trained = implicit.target_axis(position.numpy(), n_in, official), trained_axis(position, n_in)
            nearest = nearest_index(network.nearest_position(trained, n_in), n_in)
            np.testing.assert_array_equal(made.nearest, nearest.numpy())
            np.testing.assert_array_equal(made.index, trained.index.numpy())
            assert made.size == pytest.approx(trained.size.item(), rel=2e-7)
            np.testing.assert_array_equal(made.way, 2 * (position - nearest).numpy())
            ties += int((np.abs(made.way) > 1 - 1e-5).sum())
    assert ties > 100, "the picks between two pixels are what may differ"


@everywhere
@pytest.mark.parametrize("case", CASES)
def test_kernels_agree_with_the_oracle(run: Run, case: str) -> None:
    made = Case(**CASES[case])
    out = made.decoded(run, np.float32)
    assert out.dtype == np.float32
    assert_close_to_range(out, made.expected(np.float64), **BOUNDS)


@everywhere
@pytest.mark.parametrize("case", ["official", "corrected", "far flows", "a part"])
def test_half_precision_errs_at_most_twice_as_plain_half_precision(run: Run, case: str) -> None:
    check_half(run, Case(**CASES[case]))


@everywhere
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("nf", [40, 64])
def test_wider_features(run: Run, nf: int, dtype: type) -> None:
    made = Case(nf=nf, batch=1, size=(4, 6), target=(9, 11))
    if dtype == np.float16:
        check_half(run, made)
    else:
        assert_close_to_range(made.decoded(run, dtype), made.expected(np.float64), **BOUNDS)


def check_half(run: Run, made: Case) -> None:
    out = made.decoded(run, np.float16)
    assert out.dtype == np.float16
    truth = made.expected(np.float64, rounded=np.float16)
    error, plain = (np.abs(value - truth) for value in (out, made.expected(np.float16, rounded=np.float16)))
    where = "percentiles {}, of plain half precision {}".format(
        *(np.percentile(value, [10, 50, 90, 99, 100]) for value in (error, plain))
    )
    assert error.mean() <= 2 * plain.mean(), where
    assert error.max() <= 2 * plain.max(), where


@everywhere
def test_official_weights_give_the_official_frame(run: Run) -> None:
    official, name = Oracle(ORACLES, FULL, VideoINRConfig()), "hw96x128"
    record, made = official.record["cases"][name], Case(nf=64, batch=1, target=(96, 128))
    made.features = official.features["x36" if name.startswith("x36") else "x"].numpy()
    made.state = {key: value.numpy() for key, value in official.tested.state_dict().items() if "imnet" in key}
    made.y, made.x = (target_coordinates(n, m).numpy() for n, m in zip(made.features.shape[2:], (96, 128), strict=True))
    (time,) = record["times"]
    made.time = np.array([time], np.float32)
    out = made.decoded(run, np.float32)
    assert_close_to_range(out, official.arrays[f"out/{name}/t{time:.6f}"], **OFFICIAL_BOUNDS)


def test_three_launches_and_no_activations_in_memory() -> None:
    made, launched, shapes = Case(batch=1), [], []
    launch, empty = cuda_cpu._launch, cuda_cpu._empty

    def counted(name: str, defines: Any, function: str, *arguments: Any) -> None:
        launched.append(function)
        launch(name, defines, function, *arguments)

    def seen(like: np.ndarray, shape: tuple[int, ...], dtype: Any = None) -> np.ndarray:
        shapes.append(shape)
        return empty(like, shape, dtype)

    with patch.object(cuda_cpu, "_launch", counted), patch.object(cuda_cpu, "_empty", seen):
        made.decoded(on_cpu, np.float32)
    assert launched == ["target_features", "target_flows", "target_colours"]
    assert sorted(shape for shape in shapes if 13 in shape) == [(1, 3, 13, 17), (1, 13, 17, 4), (1, 13, 17, 8)]


def test_no_batch_needs_no_launch() -> None:
    made = Case()
    made.features, made.time = made.features[:0], made.time[:0]
    assert made.decoded(on_cpu, np.float32).shape == (0, 3, 13, 17)


def test_what_does_not_fit_is_an_error() -> None:
    made = Case()
    conventions: dict[str, Any] = {"official_sampling": True, "frame_upsample": 4}
    weights = implicit.pack(made.state, np.float32, **conventions)
    for features in (made.features[:, 1:], made.features.astype(np.float16), made.features[0]):
        with pytest.raises(ValueError, match="features of shape"):
            on_cpu(implicit.prepare, features, weights)
    encoded = on_cpu(implicit.prepare, made.features, weights)
    for time in (made.time[:1], made.time.astype(np.float64)):
        with pytest.raises(ValueError, match="one float32"):
            on_cpu(implicit.decode, encoded, weights, time, *made.axes)
    with pytest.raises(ValueError, match="spacing"):
        implicit.target_axis(np.zeros(1, np.float32), 4, True)
    narrow = {**made.state, "feat_imnet.net.3.bias": np.zeros(4, np.float32)}
    with pytest.raises(ValueError, match="wide"):
        implicit.pack(narrow, np.float32, **conventions)
