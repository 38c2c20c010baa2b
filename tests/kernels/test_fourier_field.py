"""The Fourier field's kernels against the oracle, and the oracle against the network."""

from typing import Any

import numpy as np
import pytest
import torch
from stvsr.kernels import fourier_field, reference
from stvsr.kernels.fourier_field import Field, phase_table, render_at, render_phases
from stvsr.training.networks.field import FourierField
from stvsr.training.networks.fourier_s import FourierS
from stvsr.training.networks.ops import cubic_at, target_coordinates

from tests.support.cuda_cpu import Run, assert_errs_at_most_twice, everywhere, on_cpu

TERMS = 6
SIZES = [(5, 7), (1, 1), (2, 33)]


def positions(size: int, target: int) -> np.ndarray:
    return target_coordinates(size, target).numpy()


@pytest.fixture(scope="module")
def network() -> FourierField:
    torch.manual_seed(0)
    field = FourierField(TERMS)
    with torch.no_grad():
        field.colour.mul_(3)
        field.spread.fill_(0.5)
    return field


def field_of(network: FourierField) -> Field:
    frequency, colour, spread = (
        p.detach().double().numpy() for p in (network.frequency, network.colour, network.spread)
    )
    return Field(frequency, colour, float(spread))


@pytest.fixture(scope="module")
def field(network: FourierField) -> Field:
    return field_of(network)


def maps(size: tuple[int, int], batch: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(sum(size))
    return (
        rng.normal(size=(batch, 2 * TERMS, *size)).astype(np.float32),
        rng.random((batch, 3, *size), np.float32),
    )


def oracle(coefficients: np.ndarray, base: np.ndarray, field: Field, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return reference.fourier_field(coefficients, base, field.frequency, field.colour, field.spread, y, x)


def run_phases(run: Run, coefficients: np.ndarray, base: np.ndarray, field: Field, rows: int, columns: int) -> Any:
    table = phase_table(field, positions(1, rows), positions(1, columns))

    def render(coefficients: Any, base: Any, *arrays: Any) -> Any:
        return render_phases(coefficients, base, fourier_field.PhaseTable(*arrays))

    return run(render, coefficients, base, table.weights, table.row_taps, table.column_taps)


def run_at(run: Run, coefficients: np.ndarray, base: np.ndarray, field: Field, y: np.ndarray, x: np.ndarray) -> Any:
    colours = field.damped(*((at[-1] - at[0]) / max(len(at) - 1, 1) for at in (y, x)))
    weights = (array.astype(np.float32) for array in (field.frequency, colours))
    return run(render_at, coefficients, base, *weights, y, x)


def test_the_oracle_is_the_network(network: FourierField, field: Field) -> None:
    coefficients, base = maps((5, 7))
    y, x = positions(5, 13), positions(7, 20)
    with torch.no_grad():
        at = torch.from_numpy(y), torch.from_numpy(x)
        expected = network.at(torch.from_numpy(coefficients), *at)
        expected += cubic_at(cubic_at(torch.from_numpy(base), at[0], 2), at[1], 3)
    np.testing.assert_allclose(oracle(coefficients, base, field, y, x), expected.numpy(), atol=2e-5)


@everywhere
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (2, 3), (1, 8)])
def test_integer_factors(run: Run, field: Field, size: tuple[int, int], rows: int, columns: int) -> None:
    coefficients, base = maps(size)
    actual = run_phases(run, coefficients, base, field, rows, columns)
    y, x = positions(size[0], rows * size[0]), positions(size[1], columns * size[1])
    cells = [1 / rows, 1 / columns]  # a single row or column has no spacing of its own
    expected = oracle(coefficients, base, Field(field.frequency, field.damped(*cells), 0.0), y, x)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=2e-5)


@everywhere
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("target", [(13, 20), (2, 3), (40, 67)], ids=str)
def test_any_size(run: Run, field: Field, size: tuple[int, int], target: tuple[int, int]) -> None:
    coefficients, base = maps(size)
    y, x = (positions(n, m) for n, m in zip(size, target, strict=True))
    actual = run_at(run, coefficients, base, field, y, x)
    np.testing.assert_allclose(actual, oracle(coefficients, base, field, y, x), atol=2e-5)


@everywhere
def test_a_part_of_the_target(run: Run, field: Field) -> None:
    coefficients, base = maps((5, 7))
    y, x = positions(5, 21), positions(7, 40)
    whole = run_at(run, coefficients, base, field, y, x)
    part = run_at(run, coefficients, base, field, y[3:17], x[30:])
    np.testing.assert_allclose(part, whole[..., 3:17, 30:], atol=1e-5)


@everywhere
def test_half_precision(run: Run, field: Field) -> None:
    coefficients, base = (array.astype(np.float16) for array in maps((6, 40)))
    y, x = positions(6, 24), positions(40, 160)
    truth = oracle(coefficients, base, field, y, x)
    plain = truth.astype(np.float16).astype(np.float64)
    assert_errs_at_most_twice(run_phases(run, coefficients, base, field, 4, 4), plain, truth)
    assert_errs_at_most_twice(run_at(run, coefficients, base, field, y, x), plain, truth)


def test_both_agree_with_the_network_of_the_shipped_size() -> None:
    torch.manual_seed(0)
    network = FourierS().eval()
    assert network.config.terms == fourier_field.TERMS
    field = field_of(network.field)
    rng = np.random.default_rng(0)
    coefficients = rng.normal(size=(1, 2 * fourier_field.TERMS, 4, 6)).astype(np.float32)
    base = rng.random((1, 3, 4, 6), np.float32)
    with torch.no_grad():
        maps = torch.from_numpy(coefficients), torch.from_numpy(base)
        integer = network.decode_integer(*maps, target_coordinates(1, 4), target_coordinates(1, 4)).numpy()
        anywhere = network.decode(*maps, target_coordinates(4, 11), target_coordinates(6, 17)).numpy()
    np.testing.assert_allclose(run_phases(on_cpu, coefficients, base, field, 4, 4), integer, atol=2e-5)
    at = positions(4, 11), positions(6, 17)
    np.testing.assert_allclose(run_at(on_cpu, coefficients, base, field, *at), anywhere, atol=2e-5)


def test_wrong_shapes_are_refused(field: Field) -> None:
    coefficients, base = maps((5, 7))
    with pytest.raises(ValueError, match="do not fit a base"):
        run_at(on_cpu, coefficients, base[:, :2], field, positions(5, 10), positions(7, 14))
    with pytest.raises(ValueError, match="does not fit 10 coefficients"):
        run_phases(on_cpu, coefficients[:, :10], base, field, 2, 2)
    with pytest.raises(ValueError, match="9 target columns"):
        phase_table(field, positions(1, 2), positions(1, 9))
