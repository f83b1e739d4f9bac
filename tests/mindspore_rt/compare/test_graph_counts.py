"""What the device form of a step asks for, against closed forms."""

import json

from configs.contract.basics.bench_case import StepCase
from configs.contract.basics.processes import run_module
from mindspore_rt.compare import graph_counts

# A head of a graph as MindSpore dumps it, with a constant of several lines, a view, and a tuple.
TEXT = """# IR entry: @12_7_one_pass_81
%para1_x: <Tensor[Float32], (4, 8)>
%para2_w: <Ref[Tensor[Float32]], (16, 8), ref_key=w, is_parameter>  :  has_default

subgraph @12_7_one_pass_81() {
  %0(a) = PrimFunc_MatMul(%para1_x, %para2_w, Bool(0), Bool(1)) {instance name: product}
      : (<Tensor[Float32], (4, 8)>, <Ref[Tensor[Float32]], (16, 8), ref_key=w, ..>) -> (<Tensor[Float32], (4, 16)>)
  %1(b) = PrimFunc_Reshape(%0, (I64(64)))
      : (<Tensor[Float32], (4, 16)>, <Tuple[Int64], TupleShape(NoShape)>) -> (<Tensor[Float32], (64)>)
  %2(c) = PrimFunc_Mul(%1, Tensor(shape=[2], dtype=Float16, value=
[ 1.0
  2.0]))
      : (<Tensor[Float32], (64)>, <Tensor[Float16], (2), value=...>) -> (<Tensor[Float32], (64)>)
  %3(d) = Split(%2, I64(0))
      : (<Tensor[Float32], (64)>, <Int64, NoShape>) -> (<Tuple[Tensor[Float32]*2], TupleShape((32), (32)), x={1}>)
"""


def test_bytes_multiplications_and_memory_of_a_graph():
    graph = graph_counts.read_graph(TEXT, {64})
    assert graph.name == "one_pass" and graph.parameters == {"w": 512}
    assert graph.counts == {
        "primitives": 3,
        "bytes": (128 + 512 + 256) + (256 + 4 + 256) + (256 + 256),
        "product_bytes": 128 + 512 + 256,
        "gate_bytes": (256 + 4 + 256) + (256 + 256),
        "multiplications": 4 * 8 * 16,
        "working_memory": 128 + 256 * 2,  # the product lives on as its view
    }


def products(batch, length, hidden):
    """Multiplications of one forward pass by 2 layers, whose last computes one token of each sentence, and the head."""
    dense, attention = hidden * hidden, 2 * length * hidden
    tokens, first = batch * length, batch
    whole = tokens * (12 * dense + attention)
    last = tokens * 2 * dense + first * (10 * dense + attention)
    return whole + last + first * (dense + 2 * hidden)


def test_a_search_step_asks_for_what_the_closed_forms_say():
    case = StepCase("search", layers=2, hidden=24, heads=2, batch=5, length=7, vocabulary=60)
    counted = json.loads(run_module("mindspore_rt.compare.graph_worker", [case.to_json(), "GPU"]))
    one_pass = next(graph for graph in counted["graphs"] if graph["name"].endswith("one_pass"))
    # Backward as many for the inputs, and again for the weights, but those of the classifier, which has no scores.
    expected = 3 * products(5, 7, 24) - 5 * 2 * 24
    assert one_pass["multiplications"] == expected
    weights = 60 * 24 + 512 * 24 + 2 * 24 + 2 * 24 + 2 * (12 * 24 * 24 + 13 * 24) + 24 * 24 + 24 + 2 * 24 + 2
    scores = 2 * 12 * 24 * 24 + 24 * 24
    # Forward and backward, the gate takes 6 primitives of one input, 8 bytes a weight, and 6 of two inputs, 12 bytes.
    assert one_pass["gate_bytes"] == (6 * 8 + 6 * 12) * scores
    assert counted["parameters"] == 4 * (weights + 4 * scores)  # with the sums of gradients and two moments
