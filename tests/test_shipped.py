"""The shipped bundles, on the shipped clip: better than bicubic, without seams, and small enough to ship."""

from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
from stvsr.engine.backends.session import open_session
from stvsr.engine.contract.bundle import Bundle, shipped_bundles
from stvsr.engine.contract.picture import FULL_SCALE
from stvsr.engine.contract.windows import one_scene
from stvsr.engine.pipeline.chain import default_factor
from stvsr.engine.pipeline.upscaler import Upscaler
from stvsr.training.checkpoints import load_official
from stvsr.training.clips import read_clip
from stvsr.training.evaluation import Protocol, evaluate
from stvsr.training.metrics import luma, psnr
from stvsr.training.networks.registry import NETWORKS
from stvsr.training.resize import imresize, to_uint8

from tests.support.paths import SAMPLE

NAMES = sorted(shipped_bundles())


@pytest.fixture(scope="module")
def upscaler():
    with Upscaler("videoinr-s", device="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def pair():
    """Two real frames of the sample, two apart, (3, 136, 240) in [0, 1]."""
    first, _, second = islice(read_clip(SAMPLE), 10, 13)
    return tuple(np.ascontiguousarray(f.transpose(2, 0, 1), dtype=np.float32) / 255 for f in (first, second))


def test_the_default_bundle_is_shipped_and_no_bundle_is_large():
    assert "videoinr-s" in NAMES
    for folder in shipped_bundles().values():
        assert sum(path.stat().st_size for path in folder.iterdir()) < 8e6


@pytest.mark.parametrize("name", NAMES)
def test_graphs_are_what_the_manifest_says(name):
    bundle = Bundle.load(shipped_bundles()[name])
    assert bundle.manifest.architecture.name in {entry.name for entry in NETWORKS}
    for graph in bundle.manifest.graphs:
        with open_session(bundle.path(graph.role), device="cpu") as session:
            assert session.inputs == graph.inputs
            assert session.outputs == graph.outputs


@pytest.mark.parametrize("name", NAMES)
def test_it_beats_bicubic_on_the_shipped_clip(name):
    factor = default_factor([Bundle.load(shipped_bundles()[name])])

    def run(frames, factor, size):
        times = tuple(Fraction(part, factor) for part in range(factor))
        with Upscaler(name, device="cpu") as upscaler:
            for made in upscaler.frames(one_scene(frames, times), size):
                yield made.astype(np.float32) / FULL_SCALE

    scores = evaluate([SAMPLE], run, Protocol(scale=4, factor=factor))
    assert set(scores["gain_db"]) == ({"at", "between"} if factor > 1 else {"at"})
    assert all(gain > 0.3 for gain in scores["gain_db"].values())


@pytest.mark.parametrize("scale", [1, 1.5, 2, 3])
def test_it_beats_bicubic_at_other_scales(upscaler, scale):
    truth = next(read_clip(SAMPLE))[:132, :240]
    size = (round(132 / scale), round(240 / scale))
    small = to_uint8(imresize(truth / 255.0, size)) / 255.0
    planar = np.ascontiguousarray(small.transpose(2, 0, 1), dtype=np.float32)
    (made,) = upscaler.between(planar, planar, [0.0], (132, 240))
    ours = psnr(luma(to_uint8(made.transpose(1, 2, 0) / FULL_SCALE)), luma(truth))
    bicubic = psnr(luma(to_uint8(imresize(small, (132, 240)))), luma(truth))
    if scale == 1:  # bicubic is the truth itself; the network still draws anew, and must not do harm
        assert ours > 33
    else:
        assert ours > bicubic


def test_tiles_leave_no_seam(pair):
    size = (3 * 136 // 2, 3 * 240 // 2)
    with Upscaler("videoinr-s", device="cpu", tile=0) as whole:
        expected = list(whole.between(*pair, [0.0, 0.5], size))
    halo_px = whole.bundle.manifest.halo_px
    with Upscaler("videoinr-s", device="cpu", tile=2 * halo_px + 16) as tiled:
        actual = list(tiled.between(*pair, [0.0, 0.5], size))
    for a, b in zip(actual, expected, strict=True):
        difference = np.abs(a.astype(int) - b)
        assert difference.max() <= FULL_SCALE / 255, f"{difference.max() / FULL_SCALE * 255:.2f} of 255"


def test_tiles_of_frames_that_move_leave_no_seam():
    """A network that aligns neighbours sees as far as things move."""
    clip = islice(read_clip(SAMPLE), 2)
    frames = [np.ascontiguousarray(f[:100, :120].transpose(2, 0, 1), np.float32) / 255 for f in clip]
    made = []
    for tile in (0, 96):
        with Upscaler("edvr-s", device="cpu", tile=tile) as upscaler:
            made.append(np.stack(list(upscaler.frames(one_scene(frames, (Fraction(0),)), (400, 480)))))
    assert np.abs(made[0].astype(int) - made[1]).max() <= FULL_SCALE / 255


def test_borders_are_as_bright_as_the_frame(upscaler):
    grey = np.full((3, 36, 50), 0.5, np.float32)
    for made in upscaler.between(grey, grey, [0.0, 0.5], (144, 200)):
        assert np.abs(made / FULL_SCALE - 0.5).max() < 0.02


def test_a_still_scene_stays_still(upscaler, pair):
    made = list(upscaler.between(pair[0], pair[0], [0.0, 0.5], (272, 480)))
    assert np.abs(made[0].astype(float) - made[1]).mean() / FULL_SCALE < 0.004


def test_weights_in_the_graphs_are_named_after_the_state_dict():
    import onnx

    folder = shipped_bundles()["videoinr-s"]
    manifest = Bundle.load(folder).manifest
    entry = next(e for e in NETWORKS if e.name == manifest.architecture.name)
    network = entry.build(type(entry.config)(**manifest.architecture.config))
    state = network.state_dict()
    held = {}
    for graph in manifest.graphs:
        for initializer in onnx.load(folder / graph.file).graph.initializer:
            if initializer.name in state:
                held[initializer.name] = onnx.numpy_helper.to_array(initializer)
    import torch

    load_official(network, {name: torch.tensor(held[name]) for name in state if name in held})
