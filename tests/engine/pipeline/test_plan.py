"""Plans: the passes through one bundle or two, the default scale and time factor, and requests out of reach."""

from pathlib import Path

import pytest
from stvsr import Bundle, RequestError
from stvsr.engine.contract.bundle import find_bundles
from stvsr.engine.pipeline.plan import default_factor, default_scale, plan_passes

from tests.support.network_bundles import DOUBLED_X1, RUN_X1, RUN_X2_ANY_TIME, RUN_X4, SLIDING_X4
from tests.support.toy import write_toy

H, W = 12, 20


def test_a_chain_interpolates_by_repetition_and_then_enlarges() -> None:
    passes = plan_passes([RUN_X1, SLIDING_X4], (H, W), (4 * H, 4 * W), 4)
    assert [(one.bundle.manifest.name, one.size, one.factor) for one in passes] == [
        ("run-x1", (H, W), 2),
        ("run-x1", (H, W), 2),
        ("sliding-x4", (4 * H, 4 * W), None),
    ]


def test_repeated_passes_shrink_their_frames_to_the_size_of_the_input() -> None:
    passes = plan_passes([RUN_X4], (H, W), (4 * H, 4 * W), 8)
    assert [(one.factor, one.shrink, one.repetition) for one in passes] == [(2, 4, 0), (2, 4, 1), (None, 1, 2)]


@pytest.mark.parametrize(
    ("bundles", "size", "factor", "words"),
    [
        ([SLIDING_X4], (2 * H, 2 * W), 1, ["x4", f"{2 * W}x{2 * H}", "another scale"]),
        ([SLIDING_X4], (4 * H, 4 * W), 2, ["makes no frames in time", "TEMPORAL+SPATIAL"]),
        ([RUN_X4], (4 * H, 4 * W), 3, ["by x2, and by repetition x4 and x8", "3 times"]),
        ([RUN_X4], (4 * H, 4 * W), 16, ["x4 and x8"]),
        ([RUN_X4], (4 * H, 4 * W), None, ["at any times", "by x2"]),
        ([DOUBLED_X1], (H, W), 1, ["by x2"]),
        ([RUN_X1, SLIDING_X4], (8 * H, 8 * W), 2, ["'run-x1+sliding-x4'", "enlarges x1", "enlarges x4"]),
        ([SLIDING_X4, RUN_X1], (4 * H, 4 * W), 3, ["3 times"]),
    ],
)
def test_requests_out_of_reach_list_the_abilities_of_the_bundles(
    bundles: list[Bundle], size: tuple[int, int], factor: int | None, words: list[str]
) -> None:
    with pytest.raises(RequestError) as caught:
        plan_passes(bundles, (H, W), size, factor)
    for word in words:
        assert word in str(caught.value)


def test_the_default_scale_is_that_of_fixed_factors_or_4(tmp_path: Path) -> None:
    toy = Bundle.load(write_toy(tmp_path / "toy"))
    chains = [toy], [RUN_X4], [DOUBLED_X1], [RUN_X1, SLIDING_X4], [toy, RUN_X2_ANY_TIME]
    assert [default_scale(chain) for chain in chains] == [4, 4, 1, 4, 2]
    for chain in chains:
        scale = int(default_scale(chain))
        assert plan_passes(chain, (H, W), (scale * H, scale * W), default_factor(chain))


def test_the_default_factor_is_2_for_bundles_that_interpolate(tmp_path: Path) -> None:
    toy = Bundle.load(write_toy(tmp_path / "toy"))
    chains = [toy], [RUN_X4], [SLIDING_X4], [RUN_X1, SLIDING_X4]
    assert [default_factor(chain) for chain in chains] == [2, 2, 1, 2]


def test_two_names_with_a_plus_are_a_chain_unless_a_folder_has_that_name(tmp_path: Path) -> None:
    first, second = (str(write_toy(tmp_path / name)) for name in ("a", "b"))
    assert [bundle.folder.name for bundle in find_bundles(f"{first}+{second}")] == ["a", "b"]
    folder = write_toy(tmp_path / "a+b")
    assert [bundle.folder.name for bundle in find_bundles(folder)] == ["a+b"]
