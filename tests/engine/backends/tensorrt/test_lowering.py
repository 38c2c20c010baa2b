"""Deformable convolution in standard operators computes what `DeformConv` computes."""

import sys

import onnx
import pytest
from onnx import helper
from stvsr import BackendError
from stvsr.engine.backends.tensorrt.lowering import lower_deform_conv

from tests.support.deform_conv_cases import DEFORM_CONV_CASES, DeformConvCase
from tests.support.onnx_models import relative_error, run_model


@pytest.mark.parametrize("case", DEFORM_CONV_CASES, ids=str)
def test_lowered_deformable_convolution_equals_the_operator(case: DeformConvCase) -> None:
    model, inputs = case.model()
    lowered = lower_deform_conv(model)
    operators = [node.op_type for node in lowered.graph.node]
    assert "DeformConv" not in operators
    assert operators.count("GridSample") == operators.count("MatMul") == 1
    assert lowered.graph.input == model.graph.input
    assert lowered.graph.output == model.graph.output
    initializers = {initializer.name: initializer for initializer in lowered.graph.initializer}
    assert all(initializers[initializer.name] == initializer for initializer in model.graph.initializer)
    [expected], [actual] = run_model(model, inputs), run_model(lowered, inputs)
    assert actual.shape == expected.shape
    assert relative_error(actual, expected) < 1e-5


def test_the_model_is_not_changed() -> None:
    model, _ = DeformConvCase((8, 8)).model()
    before = onnx.ModelProto()
    before.CopyFrom(model)
    lower_deform_conv(model)
    assert model == before


def test_computed_weights_are_refused() -> None:
    model, inputs = DeformConvCase((8, 8)).model()
    model.graph.node.insert(0, helper.make_node("Neg", ["weight"], ["negative"]))
    model.graph.node[1].input[1] = "negative"
    run_model(model, inputs)
    with pytest.raises(BackendError, match="'y' are computed by the graph, and engines need them stored"):
        lower_deform_conv(model)


def test_a_missing_onnx_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    model = DeformConvCase((8, 8)).model()[0]
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendError, match=r"stvsr\[cuda\]"):
        lower_deform_conv(model)
