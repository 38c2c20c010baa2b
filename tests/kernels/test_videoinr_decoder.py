"""VideoINR's decoder as kernels against the oracle, and the oracle against the network."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from stvsr.kernels import videoinr_decoder
from stvsr.training.networks.ops import nearest_index, target_coordinates
from stvsr.training.networks.videoinr import VideoINRConfig
from stvsr.training.networks.videoinr import target_axis as network_axis

from tests.support import cuda_cpu
from tests.support.compare import assert_close_to_range
from tests.support.cuda_cpu import assert_errs_at_most_twice, everywhere, on_cpu
from tests.support.paths import ORACLES
from tests.support.videoinr import BOUNDS, DECODER_BOUNDS, DECODER_CASES, FULL, DecoderCase, Oracle

Run = Callable[..., Any]


@pytest.mark.parametrize("name", DECODER_CASES)
def test_the_oracle_agrees_with_the_network(name: str) -> None:
    case = DecoderCase(**DECODER_CASES[name])
    assert_close_to_range(case.by_network(), case.by_oracle(np.float64), **DECODER_BOUNDS)


@pytest.mark.parametrize("official", [True, False])
def test_axes_equal_those_of_the_network(official: bool) -> None:
    network = DecoderCase(official).network
    ties = 0
    for n_in in (4, 7, 16, 30):
        for n_out in (*range(2, 90), 120, 225):
            position = target_coordinates(n_in, n_out)
            axis = videoinr_decoder.target_axis(position.numpy(), n_in, official)
            expected = network_axis(position, n_in)
            nearest = nearest_index(network.nearest_position(expected, n_in), n_in)
            np.testing.assert_array_equal(axis.nearest, nearest.numpy())
            np.testing.assert_array_equal(axis.index, expected.index.numpy())
            assert axis.size == pytest.approx(expected.size.item(), rel=2e-7)
            np.testing.assert_array_equal(axis.relative, 2 * (position - nearest).numpy())
            ties += int((np.abs(axis.relative) > 1 - 1e-5).sum())
    assert ties > 100, "only positions half-way between two pixels can differ"


@everywhere
@pytest.mark.parametrize("name", DECODER_CASES)
def test_kernels_agree_with_the_oracle(run: Run, name: str) -> None:
    case = DecoderCase(**DECODER_CASES[name])
    out = case.by_kernels(run, np.float32)
    assert out.dtype == np.float32
    assert_close_to_range(out, case.by_oracle(np.float64), **DECODER_BOUNDS)


@everywhere
@pytest.mark.parametrize("name", ["official", "corrected", "far flows", "part of the target"])
def test_half_precision_errs_at_most_twice_as_plain_half_precision(run: Run, name: str) -> None:
    check_half(run, DecoderCase(**DECODER_CASES[name]))


@everywhere
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("nf", [40, 64])
def test_wider_features_agree_with_the_oracle(run: Run, nf: int, dtype: type) -> None:
    case = DecoderCase(nf=nf, batch=1, size=(4, 6), target=(9, 11))
    if dtype == np.float16:
        check_half(run, case)
    else:
        assert_close_to_range(case.by_kernels(run, dtype), case.by_oracle(np.float64), **DECODER_BOUNDS)


def check_half(run: Run, case: DecoderCase) -> None:
    out = case.by_kernels(run, np.float16)
    assert out.dtype == np.float16
    truth = case.by_oracle(np.float64, rounded=np.float16)
    assert_errs_at_most_twice(out, case.by_oracle(np.float16, rounded=np.float16), truth)


@pytest.mark.slow
@everywhere
def test_official_weights_give_the_official_frame(run: Run) -> None:
    official, name = Oracle(ORACLES, FULL, VideoINRConfig()), "hw96x128"
    record, case = official.record["cases"][name], DecoderCase(nf=64, batch=1, target=(96, 128))
    case.features = official.features["x"].numpy()
    case.state = {key: value.numpy() for key, value in official.tested.state_dict().items() if "imnet" in key}
    case.y, case.x = (target_coordinates(n, m).numpy() for n, m in zip(case.features.shape[2:], (96, 128), strict=True))
    (time,) = record["times"]
    case.time = np.array([time], np.float32)
    out = case.by_kernels(run, np.float32)
    assert_close_to_range(out, official.arrays[f"out/{name}/t{time:.6f}"], **BOUNDS)


def test_decoding_takes_three_launches_and_stores_no_activations() -> None:
    case = DecoderCase(batch=1)
    launched: list[str] = []
    shapes: list[tuple[int, ...]] = []
    launch, empty = cuda_cpu.launch_by_name, cuda_cpu.poisoned_empty

    def recorded_launch(name: str, defines: Any, function: str, *arguments: Any) -> None:
        launched.append(function)
        launch(name, defines, function, *arguments)

    def recorded_empty(like: np.ndarray, shape: tuple[int, ...], dtype: Any = None) -> np.ndarray:
        shapes.append(shape)
        return empty(like, shape, dtype)

    with (
        patch.object(cuda_cpu, "launch_by_name", recorded_launch),
        patch.object(cuda_cpu, "poisoned_empty", recorded_empty),
    ):
        case.by_kernels(on_cpu, np.float32)
    assert launched == ["target_features", "target_flows", "target_colours"]
    assert sorted(shape for shape in shapes if 13 in shape) == [(1, 3, 13, 17), (1, 13, 17, 4), (1, 13, 17, 8)]


def test_an_empty_batch_needs_no_launch() -> None:
    case = DecoderCase()
    case.features, case.time = case.features[:0], case.time[:0]
    assert case.by_kernels(on_cpu, np.float32).shape == (0, 3, 13, 17)


def test_wrong_shapes_dtypes_and_widths_are_refused() -> None:
    case = DecoderCase()
    conventions: dict[str, Any] = {"official_sampling": True, "frame_upsample": 4}
    weights = videoinr_decoder.pack(case.state, np.float32, **conventions)
    for features in (case.features[:, 1:], case.features.astype(np.float16), case.features[0]):
        with pytest.raises(ValueError, match="features of shape"):
            on_cpu(videoinr_decoder.prepare, features, weights)
    encoded = on_cpu(videoinr_decoder.prepare, case.features, weights)
    for time in (case.time[:1], case.time.astype(np.float64)):
        with pytest.raises(ValueError, match="one float32"):
            on_cpu(videoinr_decoder.decode, encoded, weights, time, *case.axes)
    with pytest.raises(ValueError, match="spacing"):
        videoinr_decoder.target_axis(np.zeros(1, np.float32), 4, True)
    narrow = {**case.state, "feat_imnet.net.3.bias": np.zeros(4, np.float32)}
    with pytest.raises(ValueError, match="wide"):
        videoinr_decoder.pack(narrow, np.float32, **conventions)
