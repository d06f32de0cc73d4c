"""A grown network as an ONNX model, written node by node: it needs the onnx package and no exporter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gfsim.errors import InvalidInput
from gfsim.pursuit.network import Network
from gfsim.pursuit.preparation import Scaling

OPSET = 13
"""Version of the operators: Gemm, Mul, Max and Pow have not changed since."""


def onnx_model(scaling: Scaling, net: Network) -> Any:
    """The ONNX model of ``net`` behind ``scaling``: float64, from ``X`` (n, inputs) to ``output`` (n, outputs).

    Raises
    ------
    InvalidInput
        Without the onnx package.
    """
    try:
        from onnx import TensorProto, checker, helper, numpy_helper
    except ImportError as exc:
        raise InvalidInput("to_onnx needs the onnx package: pip install 'gfsim[onnx]'") from exc
    matrices, first, last = scaling.folded(net)
    top = len(matrices) - 1
    constants = {f"W{l + 1}": W for l, W in enumerate(matrices)}
    constants |= {"bias_first": first, "bias_last": last, "alpha": np.array(net.activation.alpha)}
    constants["p"] = np.array(float(net.activation.p))
    nodes, h = [], "X"
    for l in range(top + 1):
        bias = ["bias_first"] if l == 0 else ["bias_last"] if l == top else []
        z = "output" if l == top else f"z{l + 1}"
        nodes.append(helper.make_node("Gemm", [h, f"W{l + 1}", *bias], [z], transB=1))
        if l < top:
            nodes.append(helper.make_node("Mul", [z, "alpha"], [f"{z}_left"]))
            nodes.append(helper.make_node("Max", [z, f"{z}_left"], [f"{z}_max"]))
            nodes.append(helper.make_node("Pow", [f"{z}_max", "p"], [f"h{l + 1}"]))
            h = f"h{l + 1}"
    shapes = (("X", matrices[0].shape[1]), ("output", matrices[-1].shape[0]))
    ends = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["n", width]) for name, width in shapes]
    weights = [numpy_helper.from_array(np.asarray(value, dtype=np.float64), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "gfsim", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    checker.check_model(model)
    return model


def write_onnx(scaling: Scaling, net: Network, path: str | Path) -> Path:
    """:func:`onnx_model`, written to ``path``."""
    target = Path(path)
    target.write_bytes(onnx_model(scaling, net).SerializeToString())
    return target
