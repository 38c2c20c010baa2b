"""Routes through one bundle, through one again and again, and through two: which legs, and what comes out."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr.engine.backends import graphs
from stvsr.engine.contract.bundle import Bundle, find_bundles
from stvsr.engine.contract.errors import BackendError, RequestError
from stvsr.engine.contract.manifest import Architecture, FixedFactors, Graph, Manifest, SizeConstraint
from stvsr.engine.contract.picture import FULL_SCALE
from stvsr.engine.contract.windows import InputFrame
from stvsr.engine.pipeline.chain import Route, default_factor, default_scale, plan_route, shrink
from stvsr.engine.pipeline.flow import optical_flow
from stvsr.training.resize import imresize

from tests.support.paths import ORACLES
from tests.support.toy import write_toy

H, W = 12, 20
SLIDING = {"kind": "sliding", "frames": 3, "padding": "reflection"}
DOUBLED = {"kind": "doubled", "frames": 3, "overlap": 1}
RUN = {"kind": "run", "frames": 3}
ANY = {"kind": "continuous"}


def bundle(name: str, window: dict[str, Any], space: int, time: Any, **changes: Any) -> Bundle:
    graph = Graph(role="network", file="network.onnx", sha256="0" * 64, inputs=(), outputs=())
    fields: dict[str, Any] = {
        "format": 1,
        "name": name,
        "architecture": Architecture(name=name, config={}),
        "graphs": (graph,),
        "window": window,
        "space": FixedFactors(factors=(space,)),
        "time": FixedFactors(factors=(time,)) if isinstance(time, int) else time,
        "value_range": (0.0, 1.0),
        "channel_order": "RGB",
        "size": SizeConstraint(minimum=4, multiple_of=4),
        "halo_px": 2,
        "training": {},
        "scores": {},
        "licence": "none",
    }
    return Bundle(Path(name), Manifest.model_validate({**fields, **changes}), name)


def enlarged(frames: np.ndarray, factor: int) -> np.ndarray:
    return frames.repeat(factor, -1).repeat(factor, -2)


def compute(kind: str, space: int, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """What a toy network of a kind makes: moments between frames are blends of them."""
    frames = inputs["frames"]
    if kind == "sliding":
        return enlarged(frames[:, frames.shape[1] // 2, None], space)
    if kind == "doubled":  # each frame half a frame's half earlier and later, where there are neighbours
        before = np.concatenate((frames[:, :1], frames[:, :-1]), 1)
        after = np.concatenate((frames[:, 1:], frames[:, -1:]), 1)
        pair = np.stack((0.75 * frames + 0.25 * before, 0.75 * frames + 0.25 * after), 2)
        return enlarged(pair.reshape(1, -1, *frames.shape[2:]), space)
    time = float(inputs["time"][0]) if "time" in inputs else 0.5
    made = np.empty((1, 2 * frames.shape[1] - 1, *frames.shape[2:]), np.float32)
    made[:, ::2], made[:, 1::2] = frames, (1 - time) * frames[:, :-1] + time * frames[:, 1:]
    return enlarged(made, space)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Toy networks in place of sessions; every run is noted."""
    noted: list[tuple[str, dict[str, np.ndarray]]] = []

    class Toy:
        device = "cpu"

        def __init__(self, path: Path, *_: Any) -> None:
            self.name = path.parent.name

        def __enter__(self) -> "Toy":
            return self

        def __exit__(self, *_: object) -> None: ...

        def run(self, inputs: dict[str, np.ndarray], *, keep: bool = False) -> dict[str, np.ndarray]:
            noted.append((self.name, inputs))
            kind, space = self.name.split("-x")
            return {"upscaled": compute(kind, int(space), inputs)}

    monkeypatch.setattr(graphs, "OrtSession", Toy)
    return noted


def ramp(count: int, times: tuple[Fraction, ...], scenes: tuple[int, ...] = ()) -> Iterator[InputFrame]:
    """A picture that grows brighter evenly, by a hundredth a frame; `scenes` are the last frames of scenes."""
    base = np.random.default_rng(0).random((3, H, W), np.float32) * 0.1
    for number in range(count):
        yield InputFrame(base + np.float32(0.01 * number), times, number == count - 1 or number in scenes)


def parts(factor: int) -> tuple[Fraction, ...]:
    return tuple(Fraction(j, factor) for j in range(factor))


def moments(frames: list[np.ndarray]) -> list[float]:
    """When in the ramp the frames are, in input frames."""
    start = next(ramp(1, ())).rgb.mean()
    return [round(float((frame / FULL_SCALE).mean() - start) / 0.01, 2) for frame in frames]


ZSM = bundle("run-x4", RUN, 4, 2)
TMNET = bundle("run-x2", RUN, 2, ANY)
EDVR = bundle("sliding-x4", SLIDING, 4, 1)
DTSR = bundle("doubled-x1", DOUBLED, 1, 2)
TEMPORAL = bundle("run-x1", RUN, 1, 2)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("first", [ZSM, TEMPORAL])
def test_repetition_makes_every_moment(first: Bundle, factor: int, runs: list[Any]) -> None:
    size = (H * first.manifest.space.factors[0], W * first.manifest.space.factors[0])
    with Route(plan_route([first], (H, W), size, factor)) as route:
        frames = list(route.frames(ramp(6, parts(factor))))
    assert {frame.shape for frame in frames} == {(3, *size)}
    assert moments(frames) == pytest.approx([min(i / factor, 5) for i in range(6 * factor)], abs=0.03)


def test_a_continuous_run_makes_any_times(runs: list[Any]) -> None:
    with Route(plan_route([TMNET], (H, W), (2 * H, 2 * W), 3)) as route:
        frames = list(route.frames(ramp(7, parts(3))))
    assert moments(frames) == pytest.approx([min(i / 3, 6) for i in range(21)], abs=0.03)
    assert len(runs) == 3 * 2  # three runs of three frames, each at two times


def test_a_doubled_sequence_is_the_whole_one(runs: list[Any]) -> None:
    for factor in (2, 4, 8):
        with Route(plan_route([DTSR], (H, W), (H, W), factor)) as route:
            frames = list(route.frames(ramp(9, parts(factor))))
        middle = [(i + 0.5) / factor - 0.5 for i in range(9 * factor)][2 * factor : -2 * factor]
        assert len(frames) == 9 * factor
        assert moments(frames)[2 * factor : -2 * factor] == pytest.approx(middle, abs=0.03)


def test_a_chain_interpolates_and_then_enlarges(runs: list[Any]) -> None:
    legs = plan_route([TEMPORAL, EDVR], (H, W), (4 * H, 4 * W), 4)
    assert [(leg.bundle.manifest.name, leg.size) for leg in legs] == [
        ("run-x1", (H, W)),
        ("run-x1", (H, W)),
        ("sliding-x4", (4 * H, 4 * W)),
    ]
    with Route(legs) as route:
        frames = list(route.frames(ramp(5, parts(4), scenes=(1,))))
    held = [0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 2, 2.25, 2.5, 2.75, 3, 3.25, 3.5, 3.75, 4, 4, 4, 4]
    assert moments(frames) == pytest.approx(held, abs=0.03)
    assert {frame.shape for frame in frames} == {(3, 4 * H, 4 * W)}


def test_a_chain_at_uneven_times(tmp_path: Path, runs: list[Any]) -> None:
    continuous = bundle("run-x1", RUN, 1, ANY)
    with Route(plan_route([continuous, EDVR], (H, W), (4 * H, 4 * W), None)) as route:
        uneven = [
            InputFrame(frame.rgb, times, frame.last)
            for frame, times in zip(
                ramp(4, ()), [(Fraction(0), Fraction(2, 3)), (Fraction(1, 3),), (), (Fraction(0),)], strict=True
            )
        ]
        assert moments(list(route.frames(uneven))) == pytest.approx([0, 0.67, 1.33, 3], abs=0.03)


def test_scenes_are_not_blended(runs: list[Any]) -> None:
    for first, size in ((ZSM, (4 * H, 4 * W)), (DTSR, (H, W))):
        with Route(plan_route([first], (H, W), size, 2)) as route:
            joined = moments(list(route.frames(ramp(7, parts(2), scenes=(2,)))))
            alone = moments(list(route.frames(ramp(3, parts(2)))))
        assert joined[:6] == alone
        assert len(joined) == 14


@pytest.mark.parametrize(
    ("bundles", "size", "factor", "words"),
    [
        ([EDVR], (2 * H, 2 * W), 1, ["x4", "48x80", "another scale"]),
        ([EDVR], (4 * H, 4 * W), 2, ["makes no frames in time", "TEMPORAL+SPATIAL"]),
        ([ZSM], (4 * H, 4 * W), 3, ["by x2, and by repetition x4 and x8", "3 times"]),
        ([ZSM], (4 * H, 4 * W), 16, ["x4 and x8"]),
        ([ZSM], (4 * H, 4 * W), None, ["at any times", "by x2"]),
        ([DTSR], (H, W), 1, ["by x2"]),
        ([TEMPORAL, EDVR], (8 * H, 8 * W), 2, ["'run-x1+sliding-x4'", "enlarges x1", "enlarges x4"]),
        ([EDVR, TEMPORAL], (4 * H, 4 * W), 3, ["3 times"]),
    ],
)
def test_what_cannot_be_reached_says_what_can(
    bundles: list[Bundle], size: tuple[int, int], factor: int | None, words: list[str]
) -> None:
    with pytest.raises(RequestError) as caught:
        plan_route(bundles, (H, W), size, factor)
    for word in words:
        assert word.replace("48x80", f"{size[1]}x{size[0]}") in str(caught.value)


def test_defaults_are_what_the_bundles_can(tmp_path: Path) -> None:
    toy = Bundle.load(write_toy(tmp_path / "toy"))
    assert [default_scale(chain) for chain in ([toy], [ZSM], [DTSR], [TEMPORAL, EDVR], [toy, TMNET])] == [4, 4, 1, 4, 4]
    assert [default_factor(chain) for chain in ([toy], [ZSM], [EDVR], [TEMPORAL, EDVR])] == [2, 2, 1, 2]


def test_a_chain_is_two_names(tmp_path: Path) -> None:
    first, second = (str(write_toy(tmp_path / name)) for name in ("a", "b"))
    assert [b.folder.name for b in find_bundles(f"{first}+{second}")] == ["a", "b"]
    odd = write_toy(tmp_path / "a+b")
    assert [b.folder.name for b in find_bundles(odd)] == ["a+b"]


def test_tiles_of_a_network_leave_no_trace(runs: list[Any]) -> None:
    for toy in (ZSM, EDVR, DTSR):
        space = toy.manifest.space.factors[0]
        legs = plan_route([toy], (H, W), (space * H, space * W), toy.manifest.time.factors[0])
        made = []
        for tile in (0, 12):
            with Route(legs, tile=tile) as route:
                made.append(list(route.frames(ramp(4, parts(toy.manifest.time.factors[0])))))
        np.testing.assert_array_equal(*made)
    assert any(inputs["frames"].shape[-1] == 12 for _, inputs in runs)


def flowing(**flow: Any) -> Bundle:
    inputs = {"name": "flow", "pairs": ((1, 0), (1, 2)), "method": "farneback", **flow}
    return bundle("sliding-x4", SLIDING, 4, 1, flows=(inputs,))


@pytest.mark.parametrize("method", [None, "dis"])
def test_flows_are_those_that_the_manifest_names(method: str | None, runs: list[Any]) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.random((3, H, W + 2), np.float32) for _ in range(4)]
    with Route(plan_route([flowing()], (H, W + 2), (4 * H, 4 * W + 8), 1), flow=method, tile=16) as route:
        inputs = (InputFrame(frame, last=i == 3) for i, frame in enumerate(frames))
        assert len(list(route.frames(inputs))) == 4
    tiles = [inputs for _, inputs in runs]
    assert {tile["flow"].shape for tile in tiles} == {(1, 2, 2, H, 16)}
    expected = np.stack([optical_flow(frames[1], frames[i], method or "farneback") for i in (0, 2)])
    second = tiles[2:4]  # of the second frame; the frame's width is padded to 24
    np.testing.assert_array_equal(second[0]["flow"][0], expected[..., :16])
    np.testing.assert_array_equal(second[1]["flow"][0, ..., : W + 2 - 8], expected[..., 8:])
    np.testing.assert_array_equal(
        tiles[0]["flow"][0, 0], optical_flow(frames[0], frames[1], method or "farneback")[..., :16]
    )


def test_flow_without_opencv_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from stvsr.engine.pipeline import flow

    monkeypatch.setitem(sys.modules, "cv2", None)
    flow._opencv.cache_clear()
    with pytest.raises(BackendError, match=r'pip install "stvsr\[flow\]"'):
        optical_flow(*np.zeros((2, 3, 20, 20), np.float32), "dis")
    flow._opencv.cache_clear()


def test_farneback_is_the_official_flow() -> None:
    with np.load(ORACLES / "stinet_farneback.npz") as oracle:
        frames = oracle["frames_rgb_u8"].transpose(0, 3, 1, 2).astype(np.float32) / 255
        for i in range(3):
            for way, (a, b) in {"f": (i, i + 1), "b": (i + 1, i)}.items():
                flow = optical_flow(frames[a], frames[b], "farneback")
                assert np.abs(flow.transpose(1, 2, 0) - oracle[f"{way}{i}"]).max() < 1e-4


@pytest.mark.parametrize("method", ["farneback", "dis"])
@pytest.mark.parametrize("size", [(4, 4), (7, 90), (40, 50)])
def test_flow_finds_motion_at_any_size(method: str, size: tuple[int, int]) -> None:
    coarse = np.random.default_rng(0).random((3, 30, 60))
    world = imresize(coarse.transpose(1, 2, 0), (120, 240)).clip(0, 1).transpose(2, 0, 1).astype(np.float32)
    first, second = (world[:, 8 : 8 + size[0], x : x + size[1]] for x in (12, 10))
    flow = optical_flow(first, second, method)
    assert flow.shape == (2, *size)
    assert np.isfinite(flow).all()
    if min(size) >= 40:
        assert abs(np.median(flow[0]) - 2) < 0.3
        assert abs(np.median(flow[1])) < 0.3


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_frames_shrink_as_training_makes_inputs(factor: int) -> None:
    frame = np.random.default_rng(factor).random((3, 5 * factor, 7 * factor)).astype(np.float32)
    expected = imresize(frame.transpose(1, 2, 0).astype(float), (5, 7)).clip(0, 1).transpose(2, 0, 1)
    assert np.abs(shrink(frame, factor) - expected).max() < 1e-6
