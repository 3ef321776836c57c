from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin import reset_batch_norm
from sinkhorn_rebasin.errors import ArchitectureError, DataError, SpecError
from sinkhorn_rebasin.merging import pleas, zipit
from sinkhorn_rebasin.merging.zipit import zipped_units
from tests.merging.zipped_networks import images, mlp, permuted_copy, residual, spec_of


def published(similarity: Tensor, alpha: float, beta: float) -> list[list[int]]:
    """The authors' pairing: columns of a matrix are added up and removed."""
    sims = similarity.clone().fill_diagonal_(-torch.inf)
    total = len(sims)
    half = total // 2
    columns = torch.eye(total)
    model = torch.arange(total) // half
    budget = [int(half // 2 * beta + 1e-4)] * 2

    def without(matrix: Tensor, at: int) -> Tensor:
        return torch.cat([matrix[:, :at], matrix[:, at + 1 :]], 1)

    for name in (0, 1):
        if budget[name] <= 0:
            own = model == name
            sims[own[:, None] & own[None, :]] = -torch.inf
    while columns.shape[1] > half:
        best = int(sims.reshape(-1).argmax())
        row, column = best % sims.shape[1], best // sims.shape[1]
        if column < row:
            row, column = column, row
        columns[:, row] += columns[:, column]
        columns = without(columns, column)
        for turned in (False, True):
            sims = sims.mT if turned else sims
            sims[:, row] = torch.minimum(sims[:, row], sims[:, column])
            sims = without(sims, column)
        sims = sims.mT
        sims[row] *= torch.where(sims[row] > 0, alpha, 1.0)
        sims[:, row] = sims[row]
        sims[row, row] = -torch.inf
        owners = int(model[row]), int(model[column])
        model = torch.cat([model[:column], model[column + 1 :]])
        if owners[0] == owners[1]:
            budget[owners[0]] -= 1
            if budget[owners[0]] <= 0:
                own = model == owners[0]
                sims[own[:, None] & own[None, :]] = -torch.inf
    return sorted(sorted(column.nonzero().flatten().tolist()) for column in columns.mT)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_units_are_paired_as_published(alpha: float, beta: float) -> None:
    torch.manual_seed(1)
    similarity = torch.corrcoef(torch.randn(16, 12)).double()
    found = zipped_units(similarity, alpha, beta).clusters
    assert sorted(map(list, found)) == published(similarity, alpha, beta)


def test_two_orders_of_one_network_zip_back_to_it() -> None:
    network, x = residual(0), images()
    spec = spec_of(network, x)
    merged = zipit(network, permuted_copy(network, spec), spec, data=[x])
    expected = reset_batch_norm(network, [x])(x)
    for part in merged.split(merged.network(x)):
        torch.testing.assert_close(part, expected)
    assert [merge.size for merge in merged.merges.values()] == [4, 6]


def test_what_lies_behind_the_depth_stays_apart() -> None:
    first, second, x = residual(0), residual(1, outputs=5), images()
    spec = spec_of(first, x)
    merged = zipit(first, second, spec, data=[x], until="stem")
    sizes = {name: merge.size for name, merge in merged.merges.items()}
    assert sizes == {"stem": 4, "inner": 12}
    assert merged.outputs == (3, 5)
    inner = merged.network.inner.weight
    merge = merged.merges["stem"].unmerge_matrix()
    blocks = [network.inner.weight.detach() for network in (first, second)]
    for number, block in enumerate(blocks):
        mine = torch.einsum("ocij,cm->omij", block, merge[4 * number : 4 * number + 4])
        torch.testing.assert_close(inner[6 * number : 6 * number + 6], mine)


def test_each_head_runs_alone_on_the_merged_trunk() -> None:
    first, second, x = residual(0), residual(1, outputs=5), images()
    merged = zipit(first, second, spec_of(first, x), data=[x])
    ours, theirs = merged.split(merged.network(x))
    found = merged.separate()(x)
    torch.testing.assert_close(found["reference"], ours)
    torch.testing.assert_close(found["target"], theirs)
    assert merged.separate().alone("target").head.out_features == 5
    with pytest.raises(ArchitectureError, match="heads that each network keeps"):
        zipit(first, residual(2), spec_of(first, x), data=[x], heads=()).separate()


def test_equal_units_of_one_network_become_one() -> None:
    first, second, x = mlp(), mlp(), torch.randn(60, 5)
    with torch.no_grad():
        for layer, place in ((first[0], 1), (second[0], 5)):
            layer.weight[place], layer.bias[place] = layer.weight[0], layer.bias[0]
    merge = zipit(first, second, spec_of(first, x), data=[x], beta=1.0).merges["0"]
    assert any({0, 1} <= set(cluster) for cluster in merge.clusters)
    assert any({8, 13} <= set(cluster) for cluster in merge.clusters)


def test_heads_can_be_averaged() -> None:
    network, x = residual(0), images()
    spec = spec_of(network, x)
    merged = zipit(network, permuted_copy(network, spec), spec, data=[x], heads=())
    torch.testing.assert_close(merged.network(x), reset_batch_norm(network, [x])(x))
    assert merged.outputs == (0, 0)


def test_the_merged_network_is_plain_and_the_others_stay(tmp_path: Path) -> None:
    first, second, x = residual(0), residual(1), images()
    before = copy.deepcopy([first.state_dict(), second.state_dict()])
    random = torch.get_rng_state()
    merged = zipit(first.train(), second, spec_of(first.eval(), x), data=[x], until="stem").network
    torch.save(merged, tmp_path / "merged.pt")
    loaded = torch.load(tmp_path / "merged.pt", weights_only=False)
    assert torch.equal(loaded(x), merged(x))
    assert type(merged) is type(first)
    for network, state in zip((first, second), before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


def test_a_norm_over_all_units_cannot_be_widened_but_merged() -> None:
    first, second, x = mlp(norm=True), mlp(norm=True), torch.randn(40, 5)
    spec = spec_of(first, x)
    assert zipit(first, second, spec, data=[x]).network(x).shape == (40, 6)
    assert zipit(first, second, spec, data=[x], until="0").network[3].out_features == 12
    name = next(iter(spec.names))
    with pytest.raises(ArchitectureError, match=f"with more of the groups '{name}': norms over all units"):
        zipit(first, second, _other_way_round(spec), data=[x], until="3")


def _other_way_round(spec):  # type: ignore[no-untyped-def]
    from dataclasses import replace

    return replace(spec, groups=spec.groups[::-1])


def test_bad_input_is_refused_by_name() -> None:
    first, second, x = mlp(), mlp(), torch.randn(20, 5)
    spec = spec_of(first, x)
    with pytest.raises(DataError, match="batches of inputs to see both networks on, but got None"):
        zipit(first, second, spec)
    with pytest.raises(DataError, match="an iterator"):
        zipit(first, second, spec, data=iter([x]))
    with pytest.raises(DataError, match="at least one batch"):
        zipit(first, second, spec, data=[])
    with pytest.raises(SpecError, match="'nowhere' is neither a module nor a group"):
        zipit(first, second, spec, data=[x], until="nowhere")
    with pytest.raises(SpecError, match="'4' writes no hidden units"):
        zipit(first, second, spec, data=[x], until="4")
    with pytest.raises(SpecError, match=r"alpha in \[0, 1\] but got 2"):
        zipit(first, second, spec, data=[x], alpha=2)
    with pytest.raises(SpecError, match=r"heads among the last layers, 4\.bias, 4\.weight, but got 0\.bias"):
        zipit(first, second, spec, data=[x], heads=["0"])
    with pytest.raises(ArchitectureError, match="the target to be a module"):
        zipit(first, second.state_dict(), spec, data=[x])  # type: ignore[arg-type]
    with pytest.raises(ArchitectureError, match=r"2\.weight|2\.bias"):
        zipit(
            first,
            nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 7), nn.GELU(), nn.Linear(7, 3)),
            spec,
            data=[x],
        )


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_activations_that_are_no_numbers_are_refused(number: float) -> None:
    first, second, x = mlp(), mlp(), torch.randn(20, 5)
    x[3, 2] = number
    spec = spec_of(first, torch.randn(4, 5))
    for merge in (zipit, pleas):
        with pytest.raises(DataError, match=r"finite activations of group '0' .* in the data"):
            merge(first, second, spec, data=[x])


def test_units_inside_heads_are_refused_by_name() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0).eval()
    x = torch.randn(4, 3, 8)
    spec = spec_of(layer, x)
    with pytest.raises(SpecError, match="are nested in others, as units inside heads"):
        zipit(layer, copy.deepcopy(layer), spec, data=[x])
