"""Pictures of the Fourier field's kernels against the oracle of the frame and that of its conversion."""

from typing import Any

import numpy as np
import pytest
from stvsr.kernels import fourier_field, reference
from stvsr.kernels.color import Yuv420
from stvsr.kernels.fourier_field import PHASES_VARIANTS, Field, PhaseTable, Picture, phase_table
from stvsr.kernels.variants import text_of
from stvsr.training.networks.ops import target_coordinates

from tests.support.cuda_cpu import Run, everywhere, on_cpu

TERMS = 6
NV12 = Yuv420("nv12", (0.2126, 0.0722), False)
P010 = Yuv420("p010le", (0.299, 0.114), True)
PLANAR = Yuv420("yuv420p", (0.2627, 0.0593), True)
# Every coding is a kernel to compile; those of the default run have chroma in two ways, and none.
CODINGS = [NV12, None, *(pytest.param(coding, marks=pytest.mark.slow) for coding in (P010, PLANAR))]


def positions(size: int, target: int) -> np.ndarray:
    return target_coordinates(size, target).numpy()


@pytest.fixture(scope="module")
def field() -> Field:
    rng = np.random.default_rng(0)
    return Field(rng.normal(0, 6, (2, TERMS)), rng.normal(0, 0.15, (3, TERMS)), 0.4)


def maps(size: tuple[int, int], dtype: Any = np.float32, batch: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients and a base of colours that leave [0, 1] here and there."""
    rng = np.random.default_rng(sum(size))
    coefficients = rng.normal(size=(batch, 2 * TERMS, *size))
    return coefficients.astype(dtype), rng.uniform(0.1, 0.9, (batch, 3, *size)).astype(dtype)


def run_phases(
    run: Run,
    arrays: tuple[np.ndarray, np.ndarray],
    table: PhaseTable,
    size: tuple[int, int],
    coding: Yuv420 | None,
    **options: Any,
) -> Picture:
    def render(coefficients: Any, base: Any, *of_table: Any) -> Any:
        picture = fourier_field.picture_of_phases(coefficients, base, PhaseTable(*of_table), size, coding, **options)
        return (*picture.planes, picture.finite)

    *planes, finite = run(render, *arrays, table.weights, table.row_taps, table.column_taps)
    return Picture(tuple(planes), finite)


def run_at(
    run: Run, arrays: tuple[np.ndarray, np.ndarray], field: Field, y: np.ndarray, x: np.ndarray, coding: Yuv420 | None
) -> Picture:
    def render(coefficients: Any, base: Any, frequency: Any, colours: Any, y: Any, x: Any) -> Any:
        picture = fourier_field.picture_at(coefficients, base, frequency, colours, y, x, coding)
        return (*picture.planes, picture.finite)

    colours = field.damped(*((at[-1] - at[0]) / max(len(at) - 1, 1) for at in (y, x)))
    weights = (array.astype(np.float32) for array in (field.frequency, colours))
    *planes, finite = run(render, *arrays, *weights, y, x)
    return Picture(tuple(planes), finite)


def assert_shows(picture: Picture, frames: np.ndarray, coding: Yuv420 | None) -> None:
    """Fail unless every code is that of float64 frames, rounded; float32 may round the other way at a half."""
    assert picture.finite.all()
    for item, frame in enumerate(frames):
        planes = [plane[item] for plane in picture.planes]
        if coding is None:
            assert planes[0].dtype == np.uint16
            assert np.abs(planes[0] - 65535 * frame.clip(0, 1)).max() <= 0.5 + 0.2
            continue
        bits = 10 if "10" in coding.pix_fmt else 8
        assert planes[0].dtype == (np.uint8 if bits == 8 else np.uint16)
        exact = reference.rgb_to_yuv420(frame, coding.luma_weights, coding.full_range, bits)
        if len(planes) == 2:
            planes = [planes[0], planes[1][:, 0::2], planes[1][:, 1::2]]
        for plane, codes in zip(planes, exact, strict=True):
            assert plane.shape == codes.shape
            actual = plane >> (6 if coding.pix_fmt == "p010le" else 0)
            assert np.abs(actual - codes).max() <= 0.5 + (0.02 if bits == 10 else 0.005)


def truth(
    arrays: tuple[np.ndarray, np.ndarray], field: Field, size: tuple[int, int], target: tuple[int, int]
) -> np.ndarray:
    colours = field.damped(*(n / m for n, m in zip(size, target, strict=True)))
    y, x = (positions(n, m) for n, m in zip(size, target, strict=True))
    return reference.fourier_field(*arrays, field.frequency, colours, 0.0, y, x)


@everywhere
@pytest.mark.parametrize("coding", CODINGS, ids=str)
@pytest.mark.parametrize(
    ("size", "target"), [((5, 7), (13, 20)), ((3, 2), (37, 61)), ((1, 1), (1, 1)), ((2, 33), (2, 31))], ids=str
)
def test_any_size(
    run: Run, field: Field, coding: Yuv420 | None, size: tuple[int, int], target: tuple[int, int]
) -> None:
    arrays = maps(size)
    y, x = (positions(n, m) for n, m in zip(size, target, strict=True))
    colours = field.damped(*((at[-1] - at[0]) / max(len(at) - 1, 1) for at in (y, x)))
    frames = reference.fourier_field(*arrays, field.frequency, colours, 0.0, y, x)
    assert_shows(run_at(run, arrays, field, y, x, coding), frames, coding)


@everywhere
@pytest.mark.parametrize("size", [(5, 7), (1, 1), (2, 33)], ids=str)
@pytest.mark.parametrize(
    ("coding", "rows", "columns"),
    [
        *((NV12, 4, 4), (PLANAR, 2, 2)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((P010, 4, 2), (None, 3, 1), (NV12, 2, 6), (NV12, 2, 8))
        ),
    ],
    ids=str,
)
def test_integer_factors(
    run: Run, field: Field, size: tuple[int, int], coding: Yuv420 | None, rows: int, columns: int
) -> None:
    """The picture may lack the last pixels, which pad the network's input."""
    arrays, whole = maps(size), (rows * size[0], columns * size[1])
    frames = truth(arrays, field, size, whole)
    table = phase_table(field, positions(1, rows), positions(1, columns))
    for height, width in {whole, (rows * max(1, size[0] - 1), columns * max(1, size[1] - 2))}:
        picture = run_phases(run, arrays, table, (height, width), coding)
        assert_shows(picture, frames[..., :height, :width], coding)


@everywhere
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("variant", PHASES_VARIANTS, ids=text_of)
def test_every_variant_agrees_with_the_oracle(
    run: Run, field: Field, variant: fourier_field.Variant, dtype: str
) -> None:
    size, whole = (3, 70), (12, 280)
    arrays = maps(size, dtype)
    table = phase_table(field, positions(1, 4), positions(1, 4))
    frames = truth(arrays, field, size, whole)
    assert_shows(run_phases(run, arrays, table, whole, NV12, variant=variant), frames, NV12)

    def render(coefficients: Any, base: Any, *of_table: Any) -> Any:
        return fourier_field.render_phases(coefficients, base, PhaseTable(*of_table), variant)

    frame = run(render, *arrays, table.weights, table.row_taps, table.column_taps)
    np.testing.assert_allclose(frame, frames, atol=2e-5)


@everywhere
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("coding", [NV12, None], ids=str)
def test_values_that_are_no_numbers_are_noticed_in_their_picture(
    run: Run, field: Field, coding: Yuv420 | None, value: float
) -> None:
    coefficients, base = maps((5, 7))
    coefficients[1, 3, 4, 6] = value
    at = positions(5, 10), positions(7, 14)
    assert run_at(run, (coefficients, base), field, *at, coding).finite.tolist() == [1, 0]
    table = phase_table(field, positions(1, 2), positions(1, 2 if coding else 1))
    columns = table.factors[1]
    assert run_phases(run, (coefficients, base), table, (10, 7 * columns), coding).finite.tolist() == [1, 0]
    assert run_phases(run, (coefficients, base), table, (6, 7 * columns), coding).finite.tolist() == [1, 1]


def test_wrong_sizes_and_formats_are_refused(field: Field) -> None:
    arrays = maps((5, 7))
    even, odd = (phase_table(field, positions(1, n), positions(1, n)) for n in (2, 3))
    for table, size, coding in ((even, (9, 14), None), (even, (12, 14), NV12), (odd, (15, 21), NV12)):
        with pytest.raises(ValueError, match="cannot be made of"):
            run_phases(on_cpu, arrays, table, size, coding)
    with pytest.raises(ValueError, match="yuv422p"):
        run_phases(on_cpu, arrays, even, (10, 14), NV12._replace(pix_fmt="yuv422p"))
