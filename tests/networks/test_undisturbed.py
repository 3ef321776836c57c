import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sinkhorn_rebasin.networks.undisturbed import computed, plain_operations

CONVOLUTION = torch.ops.aten.convolution.default
ARGUMENTS = (torch.ones(1, 1, 3, 3), torch.ones(1, 1, 2, 2), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)


class Flags(TorchDispatchMode):
    """Notes whether oneDNN is on where an operation is dispatched."""

    def __init__(self):
        super().__init__()
        self.on = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.on.append(torch.backends.mkldnn.enabled)
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=[True, False])
def one_dnn(request):
    before = torch.backends.mkldnn.enabled
    torch._C._set_mkldnn_enabled(request.param)
    yield request.param
    torch._C._set_mkldnn_enabled(before)


def test_a_dispatched_convolution_has_its_kernel_back_where_the_caller_has_it(one_dnn):
    with plain_operations(), Flags() as flags:
        result = computed(CONVOLUTION, ARGUMENTS, {})
        computed(torch.ops.aten.neg.default, (result,), {})
        assert not torch.backends.mkldnn.enabled
    assert flags.on == [one_dnn, False]
    assert result.unique().tolist() == [4.0]
    assert torch.backends.mkldnn.enabled == one_dnn


def test_a_convolution_that_fails_leaves_the_kernels_off():
    with plain_operations():
        with pytest.raises(RuntimeError):
            computed(CONVOLUTION, (torch.ones(1), *ARGUMENTS[1:]), {})
        assert not torch.backends.mkldnn.enabled


def test_two_at_a_time_leave_the_kernels_off(one_dnn):
    with plain_operations(), plain_operations(), Flags() as flags:
        computed(CONVOLUTION, ARGUMENTS, {})
    assert flags.on == [False]
