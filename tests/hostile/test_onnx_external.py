"""An ONNX file whose values lie in another file is refused by us, wherever the tensor is, before it is run."""

from pathlib import Path

import numpy as np
import pytest

import fastmagn
from fastmagn.errors import InputError
from fastmagn.exporting import onnx_file

onnx = pytest.importorskip("onnx", reason='needs ONNX: pip install "fastmagn[onnx]"')

GOOD = Path(__file__).parent.parent / "compatibility" / "smooth.onnx"


def external(tensor, location: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def of_the_graph(model, location: str) -> None:
    external(next(tensor for tensor in model.graph.initializer if tensor.raw_data), location)


def of_a_constant(model, location: str) -> None:
    node = model.graph.node.add(op_type="Constant", output=["more"], name="more")
    tensor = onnx.numpy_helper.from_array(np.ones(3, np.float32), "more")
    node.attribute.append(onnx.helper.make_attribute("value", tensor))
    external(node.attribute[0].t, location)


def of_a_subgraph(model, location: str) -> None:
    inner = onnx.helper.make_graph([], "inner", [], [], [onnx.numpy_helper.from_array(np.ones(3, np.float32), "more")])
    external(inner.initializer[0], location)
    node = model.graph.node.add(op_type="If", output=["more"], name="more")
    node.attribute.append(onnx.helper.make_attribute("then_branch", inner))


def of_a_function(model, location: str) -> None:
    function = model.functions.add(name="f", domain="d")
    node = function.node.add(op_type="Constant", output=["more"])
    node.attribute.append(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(np.ones(3, np.float32))))
    external(node.attribute[0].t, location)


def of_a_sparse_tensor(model, location: str) -> None:
    external(model.graph.sparse_initializer.add().values, location)


def only_the_mark(model, location: str) -> None:
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL


CHANGES = (of_the_graph, of_a_constant, of_a_subgraph, of_a_function, of_a_sparse_tensor, only_the_mark)


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "/etc/passwd"])
@pytest.mark.parametrize("change", CHANGES)
def test_values_in_another_file_are_refused(change, location, tmp_path, monkeypatch):
    model = onnx.load(GOOD)
    change(model, location)
    (tmp_path / "weights.bin").write_bytes(bytes(1 << 20))
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    monkeypatch.setattr(onnx_file, "_session", lambda *arguments: pytest.fail("onnxruntime was given the file"))
    with pytest.raises(InputError) as error:
        fastmagn.load(tmp_path / "a.onnx", device="cpu")
    assert str(error.value).startswith(f"{tmp_path / 'a.onnx'}: the values of ")
    assert "are in another file; expected an ONNX file that holds everything" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_whole_file_is_read():
    pytest.importorskip("onnxruntime")
    assert fastmagn.load(GOOD, device="cpu").info.num_classes > 0


@pytest.mark.parametrize("content", [b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x0f"])
def test_what_is_no_onnx_is_one_line(content, tmp_path):
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.onnx: is not an ONNX model "):
        fastmagn.load(tmp_path / "a.onnx", device="cpu")
