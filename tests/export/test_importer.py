"""Imports of others' weights: the bundle computes what the original computes, or one sentence says why not."""

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from stvsr import Backend, Bundle, Upscaler, UpscaleRequest, one_scene, upscale
from stvsr.engine.backends.onnxruntime import OrtSession
from stvsr.engine.contract.errors import CheckpointError, RequestError
from stvsr.engine.contract.picture import FULL_SCALE
from stvsr.export.halo import measure_tiling
from stvsr.export.image_onnx import OnnxOptions
from stvsr.export.importer import ImportOptions, import_weights
from stvsr.training.networks.rife import RIFE, RIFEConfig

from tests.support import image_networks
from tests.support.image_networks import need_spandrel, save_weights
from tests.support.media import make_video, pan

KNOWN = ImportOptions("MIT", "a test")
CPU = Backend(device="cpu")


def picture(h: int, w: int) -> np.ndarray:
    """Return a frame of noise with edges, (3, h, w) in [0, 1]."""
    coarse = np.random.default_rng(h + w).random((3, h // 4 + 1, w // 4 + 1), np.float32)
    return coarse.repeat(4, 1).repeat(4, 2)[:, :h, :w]


def upscaled(folder: Path, frame: np.ndarray, scale: int, tile: int | None = 0) -> np.ndarray:
    """Return the frame that the engine makes, (3, H, W) in [0, 1]."""
    h, w = frame.shape[1:]
    with Upscaler(Bundle.load(folder), CPU, tile=tile) as upscaler:
        (made,) = upscaler.frames(one_scene([frame]), size=(scale * h, scale * w))
    return made / FULL_SCALE


def check_image_network(architecture: str, tmp_path: Path) -> None:
    """Import a network, and compare its frames with those of spandrel at an odd size, whole and in tiles."""
    import spandrel

    path = save_weights(image_networks.build(architecture), tmp_path / "weights.safetensors")
    assert import_weights(path, tmp_path / "bundle", KNOWN) == []
    manifest = Bundle.load(tmp_path / "bundle").manifest
    assert (manifest.architecture.name, manifest.licence) == (architecture, "MIT")
    assert manifest.training["imported"]["source"] == "a test"
    assert {"fp16", "tf32"} == manifest.precisions.keys()
    frame, scale = picture(53, 107), image_networks.SMALL[architecture][1]
    loaded = spandrel.ModelLoader().load_from_file(str(path))
    expected = loaded(torch.from_numpy(frame.copy())[None])[0].numpy()
    padded = manifest.size.padded(53) != 53 or manifest.size.padded(107) != 107
    tolerance = 0.02 if padded else 1e-4  # spandrel pads by reflection, the engine by repetition
    inner = expected[:, : 32 * scale, : 32 * scale]
    whole = upscaled(tmp_path / "bundle", frame, scale)
    assert np.abs(whole[:, : 32 * scale, : 32 * scale] - inner).mean() < tolerance
    assert manifest.halo_px is not None
    side = 2 * manifest.size.padded(manifest.halo_px) + max(16, manifest.size.multiple_of)
    tiled = upscaled(tmp_path / "bundle", frame, scale, manifest.size.padded(side))
    assert np.abs(tiled - whole).max() < 4 / 1024
    check_chain(tmp_path, scale)


def check_chain(folder: Path, scale: int) -> None:
    """Run an imported network behind the default one, which doubles the frame rate."""
    clip = make_video(folder / "clip.mp4", pan(2, (36, 52)))
    model = f"fourier-s+{folder / 'bundle'}"
    report = upscale(UpscaleRequest(input=clip, output=folder / "out.mp4", model=model, backend=CPU))
    assert (report.frames_out, report.size_out) == (4, (52 * scale, 36 * scale))


@pytest.mark.parametrize("architecture", image_networks.QUICK)
def test_networks_of_spandrel_are_imported(architecture: str, tmp_path: Path) -> None:
    need_spandrel()
    check_image_network(architecture, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [name for name in image_networks.SMALL if name not in image_networks.QUICK])
def test_more_networks_of_spandrel_are_imported(architecture: str, tmp_path: Path) -> None:
    need_spandrel()
    check_image_network(architecture, tmp_path)


@pytest.mark.slow
def test_rife_and_an_image_network_make_a_chain(tmp_path: Path) -> None:
    need_spandrel()
    torch.manual_seed(0)
    for version in ("3", "4.0"):
        rife = RIFE(RIFEConfig(version))
        torch.save({f"module.{name}": value for name, value in rife.state_dict().items()}, tmp_path / "flownet.pkl")
        import_weights(tmp_path / "flownet.pkl", tmp_path / "rife", replace(KNOWN, flow_scale=2.0), overwrite=True)
        assert Bundle.load(tmp_path / "rife").manifest.architecture.config["flow_scale"] == 2.0
    weights = save_weights(image_networks.build("Compact"), tmp_path / "compact.pth")
    import_weights(weights, tmp_path / "compact", KNOWN)
    clip = make_video(tmp_path / "clip.mp4", pan(4, (36, 52)))
    model = f"{tmp_path / 'rife'}+{tmp_path / 'compact'}"
    report = upscale(UpscaleRequest(input=clip, output=tmp_path / "out.mp4", model=model, time_factor=3, backend=CPU))
    assert (report.frames_out, report.size_out) == (12, (104, 72))


def test_networks_for_other_images_are_refused(tmp_path: Path) -> None:
    need_spandrel()
    gray = save_weights(image_networks.build("Compact", num_in_ch=1, num_out_ch=1), tmp_path / "gray.pth")
    with pytest.raises(RequestError, match="from 1 to 1 channels, and frames have 3"):
        import_weights(gray, tmp_path / "bundle", KNOWN)
    torch.save({"fc.weight": torch.zeros(3, 3)}, tmp_path / "classifier.pth")
    with pytest.raises(CheckpointError, match="belong to no network that spandrel or stvsr knows"):
        import_weights(tmp_path / "classifier.pth", tmp_path / "bundle", KNOWN)
    state = image_networks.build("ESRGAN").state_dict()
    state["model.1.sub.0.RDB1.conv1.0.weight"] = torch.zeros(7, 5, 3, 3)
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(CheckpointError, match="do not fit it"):
        import_weights(tmp_path / "wrong.pth", tmp_path / "bundle", KNOWN)
    assert not (tmp_path / "bundle").exists()


class _Code:
    """An object whose pickle runs a command when it is read."""

    def __reduce__(self) -> Any:
        return os.system, ("touch stvsr-ran-code",)


def test_files_without_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"weight": _Code()}, tmp_path / "code.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps({"weight": _Code()}))
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "text.onnx").write_text("not a graph")
    monkeypatch.chdir(tmp_path)
    for name, message in [
        ("code.pth", "contains other objects than weights, which could run code"),
        ("pickle.pth", "is no checkpoint of PyTorch"),
        ("text.pth", "is no checkpoint of PyTorch"),
        ("text.onnx", "cannot be read as an ONNX graph"),
        ("absent.pth", "There is no checkpoint"),
        ("absent.onnx", "cannot be read"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            import_weights(tmp_path / name, tmp_path / "bundle", KNOWN)
    assert not (tmp_path / "stvsr-ran-code").exists()


def graph(path: Path, shape: list[Any], white: float = 1.0, nhwc: bool = False, kind: int = TensorProto.FLOAT) -> Path:
    """Write a graph that doubles an image by one convolution, with a bias that shows its range."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    kernel = np.random.default_rng(0).normal(0, 0.01, (12, 3, 3, 3))
    for channel in range(3):
        kernel[4 * channel : 4 * channel + 4, channel, 1, 1] += 0.9
    bias = np.full(12, 0.05 * white)
    constants = {"kernel": kernel.astype(dtype), "bias": bias.astype(dtype)}
    first, last = ("nchw", "large") if nhwc else ("frames", "upscaled")
    nodes = [
        helper.make_node("Conv", [first, "kernel", "bias"], ["phases"], pads=[1, 1, 1, 1]),
        helper.make_node("DepthToSpace", ["phases"], [last], blocksize=2, mode="CRD"),
    ]
    if nhwc:
        nodes.insert(0, helper.make_node("Transpose", ["frames"], ["nchw"], perm=[0, 3, 1, 2]))
        nodes.append(helper.make_node("Transpose", ["large"], ["upscaled"], perm=[0, 2, 3, 1]))
    values = [helper.make_tensor_value_info(name, kind, size) for name, size in (("frames", shape), ("upscaled", None))]
    values[1] = helper.make_tensor_value_info("upscaled", kind, ["a", "b", "c", "d"])
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    body = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("shape", "white", "nhwc", "kind"),
    [
        (["n", 3, "h", "w"], 1, False, TensorProto.FLOAT),
        ([1, 3, "h", "w"], 1, False, TensorProto.FLOAT),
        ([1, 3, 40, 56], 1, False, TensorProto.FLOAT),
        (["n", "h", "w", 3], 255, True, TensorProto.FLOAT),
        (["n", 3, "h", "w"], 1, False, TensorProto.FLOAT16),
    ],
    ids=["free", "batch of one", "one size", "NHWC, 255", "float16"],
)
def test_onnx_graphs_are_imported(shape: list[Any], white: int, nhwc: bool, kind: int, tmp_path: Path) -> None:
    path = graph(tmp_path / "double.onnx", shape, white, nhwc, kind)
    notes = import_weights(path, tmp_path / "bundle", KNOWN)
    assert notes == [f"The graph enlarges x2, in the layout {'NHWC' if nhwc else 'NCHW'} and the range 0 to {white}."]
    manifest = Bundle.load(tmp_path / "bundle").manifest
    assert (manifest.halo_px, manifest.size.multiple_of, manifest.licence) == (8, 1, "MIT")
    size = [n for n in shape if isinstance(n, int) and n > 3] or [53, 107]
    frame = picture(*size)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    image = (frame.transpose(1, 2, 0) if nhwc else frame)[None] * white
    with OrtSession(path) as session:
        expected = session.run({"frames": np.ascontiguousarray(image, dtype)})["upscaled"][0].astype(np.float32) / white
    expected = np.clip(expected.transpose(2, 0, 1) if nhwc else expected, 0, 1)
    tolerance = 2e-3 if kind == TensorProto.FLOAT16 else 1e-4
    assert np.abs(upscaled(tmp_path / "bundle", frame, 2) - expected).max() < tolerance
    assert np.abs(upscaled(tmp_path / "bundle", frame, 2, tile=32) - expected).max() < 1e-3 + tolerance


def test_range_and_layout_are_found_by_trial(tmp_path: Path) -> None:
    path = graph(tmp_path / "double.onnx", ["n", "a", "b", "c"], 255, nhwc=True)
    notes = import_weights(path, tmp_path / "bundle", replace(KNOWN, halo_px=3))
    assert notes[0] == "The graph enlarges x2, in the layout NHWC and the range 0 to 255."
    assert Bundle.load(tmp_path / "bundle").manifest.halo_px == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (OnnxOptions(scale=4), "enlarges x2, and not x4"),
        (OnnxOptions(range=100), "There is no range 100"),
        (OnnxOptions(layout="HWC"), "There is no layout HWC"),
    ],
)
def test_options_that_do_not_fit_a_graph_are_refused(options: OnnxOptions, message: str, tmp_path: Path) -> None:
    path = graph(tmp_path / "double.onnx", ["n", 3, "h", "w"])
    with pytest.raises(RequestError, match=message):
        import_weights(path, tmp_path / "bundle", replace(KNOWN, onnx=options))


def node_graph(path: Path, shape: list[Any], nodes: list[Any], weights: list[Any], rank: int = 4) -> Path:
    frames = helper.make_tensor_value_info("frames", TensorProto.FLOAT, shape)
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [f"o{axis}" for axis in range(rank)])
    body = helper.make_graph(nodes, "g", [frames], [out], weights)
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_graphs_that_are_no_image_networks_are_refused(tmp_path: Path) -> None:
    free = ["n", 3, "h", "w"]
    shape = numpy_helper.from_array(np.array([1, 3, 64, 20]), "shape")
    cases: list[tuple[list[Any], list[Any], list[Any], str]] = [
        (free, [helper.make_node("ReduceMean", ["frames"], ["out"], axes=[1])], [], "makes images of 1 channels"),
        (["n", 1, "h", "w"], [helper.make_node("Relu", ["frames"], ["out"])], [], "without an axis of 3 channels"),
        ([1, 3, 32, 40], [helper.make_node("Reshape", ["frames", "shape"], ["out"])], [shape], "does not run as"),
    ]
    for case, nodes, weights, message in cases:
        path = node_graph(tmp_path / "graph.onnx", case, nodes, weights)
        with pytest.raises(RequestError, match=message):
            import_weights(path, tmp_path / "bundle", KNOWN)
    mean = [helper.make_node("ReduceMean", ["frames"], ["out"], axes=[2, 3], keepdims=0)]
    with pytest.raises(RequestError, match="no network from image to image"):
        import_weights(node_graph(tmp_path / "graph.onnx", free, mean, [], rank=2), tmp_path / "bundle", KNOWN)
    assert not (tmp_path / "bundle").exists()


def test_a_graph_that_computes_nan_for_several_frames_takes_one_at_a_time(tmp_path: Path) -> None:
    nodes = [  # 0 / 0 for two frames, 1 for one
        helper.make_node("Shape", ["frames"], ["count"], start=0, end=1),
        helper.make_node("Cast", ["count"], ["n"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["n", "two"], ["k"]),
        helper.make_node("Div", ["k", "k"], ["one"]),
        helper.make_node("Mul", ["frames", "one"], ["out"]),
    ]
    two = numpy_helper.from_array(np.array(2, np.float32), "two")
    import_weights(node_graph(tmp_path / "graph.onnx", ["n", 3, "h", "w"], nodes, [two]), tmp_path / "bundle", KNOWN)
    (frames,) = Bundle.load(tmp_path / "bundle").graph("network").inputs
    assert frames.axes[0] == 1


def test_options_without_an_effect_are_refused(tmp_path: Path) -> None:
    path = graph(tmp_path / "double.onnx", ["n", 3, "h", "w"])
    with pytest.raises(RequestError, match="--flow-scale has no effect on an ONNX file"):
        import_weights(path, tmp_path / "bundle", replace(KNOWN, flow_scale=0.5))
    torch.save(RIFE(RIFEConfig("4.6")).state_dict(), tmp_path / "rife.pkl")
    for options, message in [
        (replace(KNOWN, halo_px=8), "--halo has no effect on RIFE"),
        (replace(KNOWN, onnx=OnnxOptions(scale=2)), "--scale has no effect on weights"),
    ]:
        with pytest.raises(RequestError, match=message):
            import_weights(tmp_path / "rife.pkl", tmp_path / "bundle", options)


def test_unknown_licence_and_source_are_noted(tmp_path: Path) -> None:
    notes = import_weights(graph(tmp_path / "double.onnx", ["n", 3, "h", "w"]), tmp_path / "bundle", ImportOptions())
    assert [note for note in notes if "'unknown'" in note and ("licence" in note or "source" in note)] == notes[:2]
    assert Bundle.load(tmp_path / "bundle").manifest.licence == "unknown"


def test_tiling_is_that_of_the_receptive_field_and_grid() -> None:
    def blurred(frames: np.ndarray, radius: int) -> np.ndarray:
        kernel = torch.ones(3, 1, 2 * radius + 1, 2 * radius + 1) / (2 * radius + 1) ** 2
        return torch.nn.functional.conv2d(torch.from_numpy(frames), kernel, padding=radius, groups=3).numpy()

    def in_blocks(frames: np.ndarray) -> np.ndarray:
        means = torch.nn.functional.avg_pool2d(torch.from_numpy(frames), 4)
        return means.repeat_interleave(4, 2).repeat_interleave(4, 3).numpy()

    assert measure_tiling(lambda frames: blurred(frames, 8), 1) == (8, 1)
    assert measure_tiling(lambda frames: blurred(frames, 9), 1) == (16, 1)
    assert measure_tiling(lambda frames: blurred(frames, 9), 1, multiple_of=24) == (24, 24)
    assert measure_tiling(in_blocks, 1) == (8, 4)
    assert measure_tiling(lambda frames: frames - frames.mean((2, 3), keepdims=True), 1) == (None, 1)
