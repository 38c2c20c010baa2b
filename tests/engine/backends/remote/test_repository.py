"""Model repositories: configurations that Triton's protobuf parses, and that describe the graphs beside them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from stvsr import BackendError, Bundle, BundleError, RequestError, StvsrError
from stvsr.engine.backends.remote.models import graph_model
from stvsr.engine.backends.remote.repository import write_repository
from stvsr.engine.contract.bundle import MODELS, file_sha256, write_manifest
from stvsr.engine.contract.manifest import Engine, Manifest

from tests.support.toy import write_toy
from tests.support.toy_engines import files_in
from tests.support.toy_windows import WINDOWS
from tests.support.toy_windows import write_toy as write_window

pytest.importorskip("tritonclient.grpc", reason="stvsr[remote] is not installed: nothing parses the configurations")

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

TYPES = {onnx.TensorProto.FLOAT: model_config_pb2.TYPE_FP32}
SHAPES = {name: (1, 4, 8) for name in ("batch", "height", "width", "target_height", "target_width")}


def configs(folder: Path) -> dict[str, Any]:
    """Parse the configuration of every model, by its name."""
    found = {}
    for path in folder.glob("*/config.pbtxt"):
        found[path.parent.name] = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        assert found[path.parent.name].name == path.parent.name
    return found


def full_dims(config: Any, tensor: Any) -> list[int]:
    """Return the dimensions of a tensor as the graph has them."""
    dims = list(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)
    return [-1, *dims] if config.max_batch_size else dims


def graph_tensors(values: Any) -> list[tuple[str, int, list[int]]]:
    return [
        (
            value.name,
            TYPES[value.type.tensor_type.elem_type],
            [-1 if dim.dim_param else dim.dim_value for dim in value.type.tensor_type.shape.dim],
        )
        for value in values
    ]


@pytest.fixture(scope="module")
def window_bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("windows")
    bundles = {}
    for kind, window in WINDOWS.items():
        for timed in (False, True) if window["kind"] == "run" else (False,):
            name = f"{kind} timed" if timed else kind
            written = write_window(folder / name, window, timed=timed, integer=window["kind"] == "pair")
            bundles[name] = Bundle.load(written / "graphs")
    refined = write_window(folder / "refined", WINDOWS["pair"], integer=True, refined=True, name="refined")
    return {**bundles, "refined": Bundle.load(refined / "graphs")}


@pytest.fixture
def engines(tmp_path: Path) -> Bundle:
    """A pair network with engines of TensorRT that join up to 8 windows."""
    return add_engines(Bundle.load(write_window(tmp_path / "toy", WINDOWS["pair"]) / "graphs"))


def add_engines(bundle: Bundle, **changes: Any) -> Bundle:
    """Add an entry and a file of an engine for each graph; `changes` are fields of the entries."""
    added = []
    for graph in bundle.manifest.graphs:
        fields: dict[str, Any] = {
            "role": graph.role,
            "graph_sha256": graph.sha256,
            "precision": "fp16",
            "shapes": SHAPES,
            "target": "sm90",
            "library": "tensorrt",
            "version": "10.9",
            "lowering": 1,
            **changes,
        }
        file = f"{graph.role}.{fields['library']}.{fields['target']}.{fields['precision']}.engine"
        (bundle.folder / file).write_text(file)
        added.append(Engine(**fields, file=file, sha256=file_sha256(bundle.folder / file)))
    write_manifest(bundle.folder, bundle.manifest.model_copy(update={"engines": (*bundle.manifest.engines, *added)}))
    return Bundle.load(bundle.folder)


def test_every_graph_is_a_model_with_its_own_tensors(window_bundles: dict[str, Bundle], tmp_path: Path) -> None:
    for kind, bundle in window_bundles.items():
        repository = tmp_path / kind
        write_repository([bundle], repository)
        parsed = configs(repository)
        assert len(parsed) == {"pair": 5, "refined": 6}.get(kind, 1)
        for graph in bundle.manifest.graphs:
            name = bundle.manifest.name if graph.role == "network" else f"{bundle.manifest.name}-{graph.role}"
            config = parsed[name]
            stored = onnx.load(repository / name / "1" / "model.onnx").graph
            for side, values in ((config.input, stored.input), (config.output, stored.output)):
                tensors = [(tensor.name, tensor.data_type, full_dims(config, tensor)) for tensor in side]
                assert tensors == graph_tensors(values)
            batched = graph.role in ("network", "encoder", "refiner")
            assert config.max_batch_size == (8 if batched else 0)
            assert config.HasField("dynamic_batching") == batched
            assert config.backend == "onnxruntime"
            assert config.parameters["stvsr_fingerprint"].string_value == bundle.fingerprint
            written = (repository / name / "1" / "manifest.json").read_bytes()
            assert Manifest.model_validate_json(written) == bundle.manifest


def test_an_input_of_the_batch_axis_alone_is_reshaped(window_bundles: dict[str, Bundle], repository: Path) -> None:
    write_repository([window_bundles["run 2 timed"]], repository, max_batch=3)
    (config,) = configs(repository).values()
    time = next(tensor for tensor in config.input if tensor.name == "time")
    assert list(time.dims) == [1]
    assert time.HasField("reshape")
    assert list(time.reshape.shape) == []
    assert config.max_batch_size == 3


def test_a_batch_of_one_is_not_joined(window_bundles: dict[str, Bundle], repository: Path) -> None:
    write_repository([window_bundles["run 2"]], repository, max_batch=1)
    (config,) = configs(repository).values()
    assert config.max_batch_size == 1
    assert not config.HasField("dynamic_batching")


def test_ensembles_hand_every_feature_to_the_decoder(repository: Path) -> None:
    bundle = Bundle.load(MODELS / "fourier-s")
    write_repository([bundle], repository)
    parsed = configs(repository)
    for name, role in (("fourier-s", "decoder"), ("fourier-s-integer", "integer_decoder")):
        config = parsed[name]
        assert (config.platform, config.max_batch_size) == ("ensemble", 0)
        assert not config.instance_group
        dims = {tensor.name: list(tensor.dims) for tensor in config.input}
        assert dims == {"frames": [-1, 2, 3, -1, -1], "time": [-1, 1], "y": [-1], "x": [-1]}
        assert not any(tensor.HasField("reshape") for tensor in config.input)
        assert [tensor.name for tensor in config.output] == ["frame"]
        steps = config.ensemble_scheduling.step
        assert [step.model_name for step in steps] == [f"fourier-s-{each}" for each in ("encoder", "refiner", role)]
        known = {tensor.name for tensor in config.input}
        for step in steps:
            model = parsed[step.model_name]
            assert dict(step.input_map) == {tensor.name: tensor.name for tensor in model.input}
            assert dict(step.output_map) == {tensor.name: tensor.name for tensor in model.output}
            assert set(step.input_map.values()) <= known
            known |= set(step.output_map.values())
        assert {"features", "half", "quarter", "coefficients", "base", "frame"} <= known
        assert [path.name for path in (repository / name / "1").iterdir()] == ["manifest.json"]


def test_a_decoder_that_takes_the_time_takes_it_as_it_is(window_bundles: dict[str, Bundle], repository: Path) -> None:
    write_repository([window_bundles["pair"], window_bundles["refined"]], repository)
    for name, expected in (("toy-pair", [-1]), ("refined", [-1, 1])):
        time = next(tensor for tensor in configs(repository)[name].input if tensor.name == "time")
        assert list(time.dims) == expected


def test_a_chain_becomes_the_models_of_both(window_bundles: dict[str, Bundle], repository: Path) -> None:
    chain = [window_bundles["run 2"], window_bundles["circle 5"]]
    assert [model.name for model in write_repository([*chain, chain[0]], repository)] == ["toy-run", "toy-sliding"]
    with pytest.raises(RequestError, match="Two bundles have models named 'toy-run'"):
        write_repository([window_bundles["run 2"], window_bundles["run 4"]], repository, overwrite=True)
    assert set(configs(repository)) == {"toy-run", "toy-sliding"}


def test_half_precision_keeps_the_types_of_the_tensors(pair: Bundle, repository: Path) -> None:
    write_repository([pair], repository, precision="fp16")
    stored = onnx.load(repository / "toy-decoder" / "1" / "model.onnx").graph
    assert any(node.op_type == "Cast" for node in stored.node)
    assert {value.type.tensor_type.elem_type for value in (*stored.input, *stored.output)} == {onnx.TensorProto.FLOAT}
    assert configs(repository)["toy"].parameters["stvsr_precision"].string_value == "fp16"


@pytest.mark.parametrize(("precision", "rounded"), [("fp32", "0"), ("tf32", "1")])
def test_float32_is_not_rounded_on_a_gpu(pair: Bundle, repository: Path, precision: Any, rounded: str) -> None:
    write_repository([pair], repository, precision=precision)
    (cuda,) = configs(repository)["toy-encoder"].optimization.execution_accelerators.gpu_execution_accelerator
    assert (cuda.name, cuda.parameters["use_tf32"]) == ("cuda", rounded)


def test_engines_become_plans(engines: Bundle, repository: Path) -> None:
    write_repository([engines], repository, backend="tensorrt")
    parsed = configs(repository)
    assert parsed["toy-pair-encoder"].backend == "tensorrt"
    assert parsed["toy-pair-encoder"].instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
    assert parsed["toy-pair-encoder"].parameters["stvsr_tensorrt"].string_value == "10.9"
    assert parsed["toy-pair"].parameters["stvsr_precision"].string_value == "fp16"
    plan = repository / "toy-pair-decoder" / "1" / "model.plan"
    assert plan.read_text() == "decoder.tensorrt.sm90.fp16.engine"
    assert not list(repository.rglob("*.onnx"))


def test_engines_of_several_kinds_are_chosen_by_name(engines: Bundle, repository: Path) -> None:
    both = add_engines(engines, target="sm80")
    with pytest.raises(RequestError, match="--precision fp16 --target sm80 or --precision fp16 --target sm90"):
        write_repository([both], repository, backend="tensorrt")
    write_repository([both], repository, backend="tensorrt", target="sm80")
    assert "sm80" in (repository / "toy-pair-decoder" / "1" / "model.plan").read_text()


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"library": "tensorrt-rtx"}, {}, "has no engines of TensorRT, which Triton runs"),
        ({"library": "tensorrt-rtx"}, {"max_batch": 4}, "--library tensorrt --shapes batch=1/2/4'"),
        ({}, {"precision": "fp32"}, "no engines of TensorRT for fp32"),
        ({}, {"target": "sm80"}, "no engines of TensorRT for sm80"),
        ({}, {"max_batch": 16}, "takes 1 to 8 windows at once, and Triton would join up to 16"),
        ({"shapes": {"batch": (2, 2, 8)}}, {}, "takes 2 to 8 windows"),
        ({"shapes": {"batch": (1, 1, 1)}}, {}, "--shapes batch=1/4/8', or pass --max-batch 1"),
        ({"graph_sha256": "0" * 64}, {}, "was built from another graph"),
    ],
)
def test_engines_that_do_not_serve_are_refused(
    changes: dict[str, Any], options: dict[str, Any], message: str, tmp_path: Path, repository: Path
) -> None:
    bundle = add_engines(Bundle.load(write_window(tmp_path / "toy", WINDOWS["pair"]) / "graphs"), **changes)
    with pytest.raises(StvsrError) as refused:
        write_repository([bundle], repository, backend="tensorrt", **options)
    assert message in str(refused.value)
    assert files_in(tmp_path) == [name for name in files_in(tmp_path) if name.startswith("toy/")]


def test_damaged_engines_are_refused(engines: Bundle, repository: Path) -> None:
    path = engines.folder / "decoder.tensorrt.sm90.fp16.engine"
    path.write_text("damaged")
    with pytest.raises(BundleError, match="is damaged: compile the bundle again"):
        write_repository([engines], repository, backend="tensorrt")
    path.unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        write_repository([engines], repository, backend="tensorrt")
    assert not repository.exists()


def test_a_conversion_that_changes_the_tensors_is_refused(
    pair: Bundle, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "stvsr.engine.backends.remote.repository.graph_to_fp16", lambda *arguments: pair.path("decoder").read_bytes()
    )
    with pytest.raises(BundleError, match=r"The model of encoder\.onnx should have the inputs frames"):
        write_repository([pair], repository, precision="fp16")
    assert not repository.exists()


def test_types_that_are_not_sent_are_refused(pair: Bundle) -> None:
    spec = pair.graph("encoder").inputs[0].model_copy(update={"dtype": "bool"})
    with pytest.raises(BundleError, match="'frames' is of type bool"):
        graph_model(pair.manifest, "encoder").described(spec)


@pytest.mark.parametrize("name", ["../toy", "a/b", "", ".hidden", "tö"])
def test_names_that_are_no_names_of_models_are_refused(name: str, tmp_path: Path, repository: Path) -> None:
    bundle = Bundle.load(write_toy(tmp_path / "toy", name=name))
    with pytest.raises(BundleError, match="cannot be named"):
        write_repository([bundle], repository)
    assert not repository.exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "openvino"}, BackendError, "Unknown backend 'openvino': use onnxruntime or tensorrt"),
        ({"precision": "int8"}, BackendError, "Unknown precision 'int8'"),
        ({"target": "sm89"}, RequestError, "--target has no effect without --backend tensorrt"),
        ({"max_batch": 0}, RequestError, "largest batch is 0"),
    ],
)
def test_wrong_options_are_refused(
    options: dict[str, Any], error: type[StvsrError], message: str, pair: Bundle, repository: Path
) -> None:
    with pytest.raises(error, match=message):
        write_repository([pair], repository, **options)
    assert not repository.exists()


def test_only_repositories_of_this_command_are_replaced(pair: Bundle, repository: Path) -> None:
    write_repository([pair], repository)
    with pytest.raises(RequestError, match="exists already; name another folder or pass --overwrite"):
        write_repository([pair], repository)
    write_repository([pair], repository, max_batch=2, overwrite=True)
    assert configs(repository)["toy-encoder"].max_batch_size == 2
    foreign = repository / "other" / "config.pbtxt"
    foreign.parent.mkdir()
    foreign.write_text('name: "other"')
    before = files_in(repository)
    with pytest.raises(RequestError, match="contains something other than a repository of 'stvsr triton'"):
        write_repository([pair], repository, overwrite=True)
    assert files_in(repository) == before
    assert [path.name for path in repository.parent.iterdir()] == ["repository"]


def test_a_write_that_fails_leaves_the_old_repository(
    pair: Bundle, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_repository([pair], repository)
    before = {name: (repository / name).read_bytes() for name in files_in(repository)}

    def fail(*arguments: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stvsr.engine.backends.remote.repository.ensemble_config", fail)
    with pytest.raises(OSError, match="No space left"):
        write_repository([pair], repository, max_batch=2, overwrite=True)
    assert {name: (repository / name).read_bytes() for name in files_in(repository)} == before
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


def test_a_repository_needs_neither_pytorch_nor_onnx(pair: Bundle, repository: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'tritonclient', 'grpc'): sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from stvsr import Bundle\n"
        "from stvsr.engine.backends.remote.repository import write_repository\n"
        f"write_repository([Bundle.load({str(pair.folder)!r})], Path({str(repository)!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(configs(repository)) == sorted(path.name for path in repository.iterdir())
