import numpy as np
from mindspore import Parameter

from mindspore_rt.cells import backend


def test_new_values_reach_a_graph_that_has_run():
    """Under MindSpore 2.10 a graph does not see `Parameter.set_data` any more."""
    parameter = Parameter(np.ones(3, np.float32), name="p")

    @backend.jit
    def total():
        return (parameter * 2).sum()

    totals = [float(total().asnumpy())]
    for value in (5, 9):
        backend.put(parameter, np.full(3, value, np.float32))
        totals.append(float(total().asnumpy()))
    assert totals == [6, 30, 54]
