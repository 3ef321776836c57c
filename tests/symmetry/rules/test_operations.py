"""One operation on six hidden units: whatever it is, what discovery claims must hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin.permutations import permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.cases import randomise
from tests.symmetry.witness import difference
from tests.zoo.case import Function


def in_place(change: Callable[[Tensor], object]) -> Callable[[Tensor], Tensor]:
    def run(h: Tensor) -> Tensor:
        h = h.clone()
        change(h)
        return h

    return run


def column_from_column(h: Tensor) -> None:
    h[:, 1] = h[:, 0]


def columns_from_columns(h: Tensor) -> None:
    h[:, [0, 3]] = h[:, [1, 2]]


def where_positive(h: Tensor) -> None:
    h[h > 0] = 0.5


def pieces_into_empty(h: Tensor) -> Tensor:
    out = torch.empty(h.shape, dtype=h.dtype)
    out[:, :2].copy_(h[:, :2])
    out[:, 2:].copy_(h[:, 2:] * 2)
    return out


def halves_of_a_view(h: Tensor) -> Tensor:
    h = h.clone()
    view = h.view(-1, 2, 3)
    view[:, 0] = view[:, 1].clone()
    return h


def weights(*shape: int) -> Tensor:
    return torch.arange(float(torch.tensor(shape).prod()), dtype=torch.float64).view(shape) / 10


# Operations whose symmetries are told by hand: (size, blocks) of the groups.
KNOWN: dict[str, tuple[Callable[[Tensor], Tensor], tuple[tuple[int, int], ...]]] = {
    "identity": (lambda h: h, ((6, 1),)),
    "scaled_part": (lambda h: torch.cat([h[:, :2], 2 * h[:, 2:]], 1), ((2, 1), (4, 1))),
    "two_functions": (lambda h: torch.cat([h[:, :3].relu(), h[:, 3:].tanh()], 1), ((3, 1), (3, 1))),
    "sum_of_part": (lambda h: h * h[:, :2].sum(1, keepdim=True), ((2, 1), (4, 1))),
    "maximum_of_part": (lambda h: h + h[:, 2:].amax(1, keepdim=True), ((2, 1), (4, 1))),
    "gram_of_part": (lambda h: (h[:, :2] @ h[:, :2].t()) @ h, ((2, 1), (4, 1))),
    "norm_of_part": (
        lambda h: h + F.layer_norm(h[:, :4], (4,), weight=None).pow(3).sum(1, True),
        ((4, 1), (2, 1)),
    ),
    "zeroed_part": (lambda h: torch.cat([h[:, :2] * 0, h[:, 2:]], 1), ((2, 1), (4, 1))),
    "pieces_into_empty": (pieces_into_empty, ((2, 1), (4, 1))),
    "halves_of_a_view": (halves_of_a_view, ((3, 1), (3, 1))),
    "moved_pieces": (lambda h: torch.cat([h[:, 4:], h[:, :4]], 1), ((6, 1),)),
    "some_units_twice": (
        lambda h: h * torch.cat([h[:, :2], h], 1).sum(1, keepdim=True),
        ((2, 1), (4, 1)),
    ),
    "rotated_halves": (lambda h: torch.cat([-h[:, 3:], h[:, :3]], 1) + h, ((3, 1),)),
    "column_from_column": (in_place(column_from_column), ((4, 1),)),
    "written_through_transpose": (in_place(lambda h: h.t().add_(1.0)), ((6, 1),)),
    "gram": (lambda h: (h @ h.t()) @ h, ((6, 1),)),
    "outer_product": (lambda h: (h[:, :, None] * h[:, None, :]).sum(1), ((6, 1),)),
    "batch_statistics": (lambda h: F.batch_norm(h, None, None, training=True), ((6, 1),)),
    "standardised": (lambda h: h / h.std(1, keepdim=True), ((6, 1),)),
    "softmax_in_blocks": (lambda h: h.view(-1, 2, 3).softmax(2).flatten(1), ((2, 1), (3, 2))),
    "softmax_across_blocks": (lambda h: h.view(-1, 2, 3).softmax(1).flatten(1), ((3, 1), (2, 3))),
    "condition_on_position": (lambda h: torch.where(torch.arange(6) > 2, h, -h), ((3, 1), (3, 1))),
    "powers_by_position": (lambda h: h ** torch.tensor([1, 1, 2, 3, 3, 3]), ((2, 1), (3, 1))),
    "masked_by_data": (lambda h: h.masked_fill(h > 0, 0.3), ((6, 1),)),
    "branch_on_a_sum": (lambda h: h if bool(h.sum() > 0) else -h, ((6, 1),)),
    "branch_on_one_unit": (lambda h: h if bool(h[0, 2] > 0) else h.tanh(), ((5, 1),)),
    "sum_with_constant_matrix": (lambda h: h @ torch.ones(6, 6, dtype=h.dtype) + h, ((6, 1),)),
    "maximum": (lambda h: h - h.max(1, keepdim=True).values, ((6, 1),)),
    "place_of_the_maximum": (lambda h: h * h.max(1, keepdim=True).indices, ()),
    "place_of_the_minimum_beside": (lambda h: h[h.min(0).indices] + h, ()),
    "found_by_units": (lambda h: weights(7)[(h > 0).long() + 2 * (h > 0.5).long()] + h, ((6, 1),)),
    "rows_found_by_units": (lambda h: weights(7, 4)[(h > 0).long()].sum(2) + h, ((6, 1),)),
    "embedded_by_units": (lambda h: F.embedding((h > 0).long(), weights(7, 3)).sum(2) * h, ((6, 1),)),
    "found_by_some_units": (lambda h: weights(7)[(h[:, :2] > 0).long()].sum(1, True) * h, ((2, 1), (4, 1))),
    "masked_by_units": (lambda h: weights(6, 2)[h[0] > -9].sum(1) * h, ()),
    "pieces_of_rows": (
        lambda h: h.flatten()[:36].view(2, 18)[:, [0, 1, 2, 9, 10, 11]].sum(0, True) + h,
        ((3, 1), (3, 1)),
    ),
    "windows_in_memory": (
        lambda h: h.contiguous().as_strided((3, 4, 6), (6, 6, 1)).sum(1).repeat(2, 1) + h,
        ((6, 1),),
    ),
    "shifted_in_memory": (
        lambda h: h.contiguous().as_strided((5, 6), (6, 1), 3).repeat(2, 1)[:6] + h,
        ((3, 1),),
    ),
    "strides_changed_in_place": (in_place(lambda h: h.as_strided_((6, 6), (1, 6))), ()),
    "strides_kept_in_place": (in_place(lambda h: h.as_strided_((6, 6), (6, 1))), ((6, 1),)),
    "spectrum_of_units": (lambda h: torch.fft.rfft(h, dim=1).abs().sum(1, keepdim=True) * h, ()),
    "spectrum_beside_units": (lambda h: torch.fft.rfft(h, dim=0).abs().repeat(2, 1)[:6] + h, ((6, 1),)),
    "parts_with_other_rows": (lambda h: torch.cat([h[:, 3:], h.roll(1, 0)[:, :3]], 1) + h, ((3, 1),)),
    "parts_in_other_rows": (lambda h: torch.cat([h[:, :3], h.roll(1, 0)[:, 3:]], 1), ((3, 1), (3, 1))),
    "parts_with_a_sum_of_rows": (
        lambda h: torch.cat([h[:, :2], h[:, 2:].sum(0, True).expand(6, 4)], 1),
        ((2, 1), (4, 1)),
    ),
    "hardswish": (F.hardswish, ((6, 1),)),
    "log_sigmoid": (F.logsigmoid, ((6, 1),)),
    "pooled_beside_units": (lambda h: F.avg_pool2d(h[None, None], (2, 1))[0, 0], ((6, 1),)),
    "pooled_in_rows": (lambda h: F.max_pool2d(h[None, None], (1, 2))[0, 0].repeat(1, 2) * weights(6), ()),
    "window_of_a_frame": (lambda h: F.avg_pool1d(F.pad(h.t(), (2, 1), value=0.3), 3).t(), ((6, 1),)),
    "window_of_different_parts": (
        lambda h: F.avg_pool1d(torch.cat([h.t(), h.t().roll(3, 0)], 1), 3).t(),
        ((3, 1), (2, 3)),
    ),
    "reversed_and_added": (lambda h: h + h.flip(1).tanh(), ((3, 1), (2, 3))),
    "sorted": (lambda h: h.sort(1).values, ((6, 1),)),
    "best": (lambda h: h.topk(6, 1).values, ((6, 1),)),
    "best_of_part": (lambda h: h + h[:, :2].topk(1, 1).values, ((2, 1), (4, 1))),
    "median": (lambda h: h - h.median(1, keepdim=True).values, ((6, 1),)),
    "median_of_all": (lambda h: h - h.median(), ((6, 1),)),
    "maximum_with_indices": (lambda h: h - h.max(1, keepdim=True).values, ((6, 1),)),
    "maximum_of_all": (lambda h: h - h.max(), ((6, 1),)),
    "sorted_in_blocks": (lambda h: h.view(-1, 2, 3).sort(2).values.flatten(1), ((2, 1), (3, 2))),
}

# Operations of which only soundness is asked for.
OTHER: dict[str, Callable[[Tensor], Tensor]] = {
    "columns_from_columns": in_place(columns_from_columns),
    "where_positive": in_place(where_positive),
    "as_strided": lambda h: h.as_strided((4, 6), (1, 6)).sum(0, keepdim=True) + h,
    "diagonal_written": in_place(lambda h: h[:6].diagonal().add_(1)),
    "cummax": lambda h: h.cummax(1).values,
    "best_gathered": lambda h: h.gather(1, h.topk(6, 1).indices),
    "place_of_the_maximum": lambda h: h + h.max(1, keepdim=True).indices,
    "place_as_a_number": lambda h: h * float(h[0].max(0).indices),
    "sorted_gather": lambda h: h.gather(1, h.argsort(1)),
    "gather": lambda h: h.gather(1, torch.tensor([[3, 2, 1, 0, 5, 4]]).expand(len(h), 6)),
    "index": lambda h: h[:, torch.tensor([1, 0, 2, 3, 4, 5])],
    "sorted_by_first": lambda h: h[:, h[0].argsort()],
    "triangle": lambda h: h.tril(),
    "trace": lambda h: h + torch.diagonal(h[:6]).sum(),
    "outer_cumulative": lambda h: (h[:, :, None] * h[:, None, :]).cumsum(1).sum(2),
    "spectrum": lambda h: torch.fft.rfft(h, dim=1).abs().sum(1, keepdim=True) * h,
    "convolved_units": lambda h: F.conv1d(h[:, None], weights(1, 1, 3), padding=1)[:, 0],
    "pooled_units": lambda h: F.avg_pool1d(h[:, None], 3, 1, 1)[:, 0],
    "interpolated_units": lambda h: F.interpolate(h[:, None, :3], 6)[:, 0],
    "unfolded_units": lambda h: h.unfold(1, 2, 1).sum(2).repeat(1, 2)[:, :6],
    "rolled": lambda h: h.roll(3),
    "rotated": lambda h: torch.rot90(h[:6], 1),
    "transposed": lambda h: h[:6].t(),
    "reshaped_across": lambda h: h.reshape(-1, 3, 2).transpose(1, 2).reshape(-1, 6) + h,
    "repeated": lambda h: h.repeat_interleave(2, 1)[:, :6] * h,
    "tiled_rows": lambda h: h[:, :2].repeat(1, 3).view(-1, 2, 3).sum(2).repeat(1, 3),
    "differences": lambda h: torch.cat([h.diff(dim=1), h[:, :1]], 1),
    "constant_matrix": lambda h: h @ weights(6, 6),
    "two_group_norms": lambda h: F.group_norm(h, 3) * F.group_norm(h, 2),
    "weighted_layer_norm": lambda h: F.layer_norm(h, (6,), weights(6)),
    "two_softmaxes": lambda h: (
        h.view(-1, 2, 3).softmax(2).flatten(1) + h.view(-1, 3, 2).softmax(2).flatten(1)
    ),
    "attention": lambda h: F.scaled_dot_product_attention(*(h.view(-1, 1, 2, 3),) * 3).flatten(1),
    "causal_attention": lambda h: F.scaled_dot_product_attention(*(h[None, None],) * 3, is_causal=True)[0, 0],
    "bucketed": lambda h: torch.bucketize(h, torch.tensor([0.0, 1.0], dtype=h.dtype)).double() + h,
    "number_of_nonzero": lambda h: h * (h > 0).nonzero()[:, 1].double().sum(),
    "one_hot": lambda h: h * F.one_hot(h.argmax(1), 6),
    "masked_select": lambda h: h * h.masked_select(h > 0)[0],
    "interpolated_by_position": lambda h: torch.lerp(h, torch.zeros_like(h), weights(6)),
    "clamped_by_position": lambda h: h.clamp(min=weights(6) - 0.3),
    "trapezoid": lambda h: h * torch.trapezoid(h, dim=1)[:, None],
    "kronecker": lambda h: torch.kron(h, torch.tensor([[1.0, 2.0]], dtype=h.dtype))[:, :6],
    "block_matrix": lambda h: h @ torch.block_diag(*(torch.ones(3, 3, dtype=h.dtype),) * 2),
    "scattered": lambda h: torch.zeros_like(h).scatter(
        1, torch.tensor([[1, 0, 3, 2, 5, 4]]).expand(len(h), 6), h
    ),
    "index_added": lambda h: torch.zeros_like(h).index_add(1, torch.tensor([0, 0, 1, 1, 2, 2]), h),
    "narrowed": lambda h: h.narrow(1, 1, 3).repeat(1, 2),
    "selected": lambda h: h.select(1, 0)[:, None] * h,
    "unbound": lambda h: torch.stack(h.unbind(1)[::-1], 1),
    "split_unevenly": lambda h: torch.cat(h.tensor_split([1, 3], 1)[::-1], 1),
    "bilinear": lambda h: F.bilinear(h, h, weights(6, 6, 6)),
    "complex": lambda h: torch.view_as_real(torch.view_as_complex(h.reshape(-1, 3, 2)) ** 2).reshape(-1, 6),
    "cropped": lambda h: F.pad(h, (1, -1)),
    "reflected": lambda h: F.pad(h[:, None], (1, 1), mode="reflect")[:, 0, :6],
    "circular": lambda h: F.pad(h[None], (1, 1), mode="circular")[0, :, 1:7] + h,
    "circular_shift": lambda h: F.pad(h[:, None], (1, 1), mode="circular")[:, 0, :6],
    "quantile": lambda h: h - h.quantile(0.3, dim=1, keepdim=True),
    "shuffled_channels": lambda h: F.channel_shuffle(h[:, :, None, None], 2)[:, :, 0, 0] + h,
    "shuffled_pixels": lambda h: F.pixel_shuffle(h[:, :4, None, None], 2).flatten(1).repeat(1, 2)[:, :6] * h,
    "folded": lambda h: F.fold(h[:, :4, None], (2, 2), (2, 2)).flatten(1).repeat(1, 2)[:, :6],
    "inverted": lambda h: torch.linalg.solve(torch.eye(6, dtype=h.dtype) + h[:6].t() @ h[:6], h[:6].t()),
    "row_put": lambda h: h.index_put((torch.tensor([0, 2]),), weights(6)),
    "row_put_by_mask": lambda h: h.index_put((h.sum(1) > 0,), weights(6)),
    "entry_put": lambda h: h.index_put((torch.tensor([0, 2]), torch.tensor([1, 1])), weights(2)),
    "rows_put": lambda h: h.index_put((torch.tensor([0, 2]),), h[1:3] * weights(6)),
    "looked_up_by_data": lambda h: weights(4, 6)[(h.sum(1) > 0).long()] + h,
    "random_like": lambda h: h * torch.rand_like(h).gt(-1),
}


def network(operation: Callable[[Tensor], Tensor]) -> nn.Module:
    torch.manual_seed(0)
    net = Function(lambda net, x: net.b(operation(net.a(x)).tanh()), a=nn.Linear(3, 6), b=nn.Linear(6, 2))
    return randomise(net).double()


@pytest.mark.parametrize("name", [*KNOWN, *OTHER])
def test_what_is_claimed_holds(name: str) -> None:
    model = network(KNOWN[name][0] if name in KNOWN else OTHER[name])
    spec = discover_symmetry(model, torch.randn(6, 3, dtype=torch.float64))
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        state = permute_state(model.state_dict(), spec, random_permutations(spec, generator=generator))
        inputs = torch.randn(6, 3, dtype=torch.float64, generator=generator)
        if name.startswith("branch"):
            inputs = inputs.abs()
        assert difference(model, state, inputs) < 1e-11, spec


@pytest.mark.parametrize("name", KNOWN)
def test_the_groups_are_the_largest_there_are(name: str) -> None:
    operation, groups = KNOWN[name]
    spec = discover_symmetry(network(operation), torch.randn(6, 3, dtype=torch.float64))
    assert Counter((group.size, group.blocks) for group in spec.groups) == Counter(groups), spec


@pytest.mark.parametrize("name", ["cummax", "best_gathered", "gather", "index_added", "spectrum"])
def test_what_is_not_understood_is_named(name: str) -> None:
    operation = {
        "spectrum": "_fft_r2c",
        "index_added": "index_add",
        "best_gathered": "topk",
    }.get(name, name)
    spec = discover_symmetry(network(OTHER[name]), torch.randn(6, 3, dtype=torch.float64))
    assert not spec.groups
    assert any(item.tensor.startswith("a.") and operation in item.reason for item in spec.frozen), spec
