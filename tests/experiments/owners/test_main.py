"""The command runs, and leaves what it says it leaves."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from experiments.data import ImageData, load_digits
from experiments.owners.__main__ import main
from experiments.owners.clients import asked_on, dirichlet_split, trained
from experiments.owners.halves import split_by_halves
from experiments.owners.noise import noise_like_data
from experiments.owners.one_round import averaged
from experiments.owners.rounds import WAYS, Plan, aligned, best, curve, norms_of, restored
from experiments.reporting.json_files import read_json
from experiments.reporting.receipts import read_receipt
from sinkhorn_rebasin import discover_symmetry


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_owners_have_all_samples_and_classes_of_their_own() -> None:
    labels = torch.arange(5000) % 10
    split = dirichlet_split(labels, 4, 0.1, seed=1)
    assert torch.equal(torch.cat(split).sort().values, torch.arange(5000))
    counts = torch.stack([torch.bincount(labels[places], minlength=10) for places in split])
    assert float((counts.max(0).values / 500).mean()) > 0.6
    even = torch.stack(
        [torch.bincount(labels[p], minlength=10) for p in dirichlet_split(labels, 4, 1000.0, seed=1)]
    )
    assert float((even.max(0).values / 500).mean()) < 0.3


def test_one_round_and_several_are_finished_once(tmp_path: Path) -> None:
    small = ["--digits", "--seeds", "1", "--clients", "3", "--epochs", "1", "--out", str(tmp_path)]
    main(["one-round", *small, "--width", "8", "--server", "60", "--scale-steps", "4"])
    found = read_receipt(tmp_path)["metrics"]["rows"]
    methods = [each["method"] for each in found]
    assert {"plain average", "PFNM, tuned", "ours, data-free", "ours, learned", "ensemble"} <= set(methods)
    assert next(e for e in found if e["method"] == "ours, data-free")["data of the server"] == "–"
    before = (tmp_path / "finished").stat().st_mtime_ns
    main(["rounds", *small, "--rounds", "2"])
    metrics = read_receipt(tmp_path)["metrics"]
    assert [each["method"] for each in metrics["rounds"]] == list(WAYS)
    assert metrics["rows"] == found
    assert (tmp_path / "owners.png").is_file()
    assert (tmp_path / "finished").stat().st_mtime_ns > before


def test_two_owners_are_merged_and_trained_on(tmp_path: Path) -> None:
    small = ["--digits", "--seeds", "1", "--server", "100", "--epochs", "4", "--out", str(tmp_path)]
    main(["halves", *small])
    rows = {
        row["method"]: row["accuracy"] for row in read_json(tmp_path / "finished" / "halves-0.json")["rows"]
    }
    assert rows["one owner, mean"] < 0.75  # half of the classes, nearly
    assert rows["ours: weight matching, REPAIR on noise"] > rows["one owner, mean"]
    assert rows["trained from ours"] > rows["one owner, mean"]
    labels = torch.arange(1000) % 10
    first, second = split_by_halves(labels, 0.98, seed=0)
    assert torch.equal(torch.cat([first, second]).sort().values, torch.arange(1000))
    assert torch.bincount(labels[second], minlength=10).tolist() == [2] * 5 + [98] * 5


def test_clients_decide_by_their_own_images() -> None:
    images = torch.randn(40, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = (images.flatten(1)[:, 0] > 0).long()
    data = ImageData(images, labels, images, labels, 2, "signs")
    split = [torch.arange(30), torch.arange(30, 40)]
    asked = asked_on(data, split, 0.2, seed=3)
    assert [len(told) for _, told in asked] == [6, 2]
    for places, (drawn, told) in zip(split, asked, strict=True):
        for image, label in zip(drawn, told, strict=True):
            same = [place for place in places.tolist() if torch.equal(images[place], image)]
            assert len(same) == 1
            assert labels[same[0]] == label
    right, wrong = (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)) for _ in range(2))
    with torch.no_grad():
        for network, sign in ((right, 1.0), (wrong, -1.0)):
            network[1].weight.copy_(torch.tensor([[-sign, 0, 0, 0], [sign, 0, 0, 0]]))
            network[1].bias.zero_()
    assert best({"wrong": wrong, "right": right}, asked)[0] == "right"


def test_clients_of_one_start_train_on_what_those_of_fedavg_do(monkeypatch: pytest.MonkeyPatch) -> None:
    data, starts = load_digits(), {}
    for way in ("FedAvg, one start for all", "ours, one start for all"):
        seen: list[torch.Tensor] = []

        def told(
            network: nn.Module, *given: Any, seen: list[torch.Tensor] = seen, **options: Any
        ) -> nn.Module:
            seen.append(nn.utils.parameters_to_vector(network.parameters()).detach())
            return trained(network, *given, **options)

        monkeypatch.setattr("experiments.owners.rounds.trained", told)
        found = curve(way, data, Plan(clients=3, rounds=3, widths=(4,), hidden=8))
        starts[way] = torch.stack(seen)
    assert {each["trained on"] for each in found["kept"]} == {"average"}
    assert "classes weighed" in {each["served"] for each in found["kept"]}
    first, second = starts.values()
    assert torch.equal(first, second)


def test_what_was_averaged_gets_its_norm_back() -> None:
    networks = [nn.Linear(50, 50) for _ in range(3)]
    merged = averaged(networks, [1 / 3] * 3)
    norms = [norms_of(network) for network in networks]
    again = restored(merged, norms)
    expected = sum(float(network.weight.detach().norm()) for network in networks) / 3
    assert float(again.weight.detach().norm()) == pytest.approx(expected, rel=1e-5)
    assert float(merged.weight.detach().norm()) < 0.7 * expected


def test_noise_has_the_covariance_of_first_layers_and_is_white_without_one() -> None:
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(2)]
    weights = [network[1].weight.detach() for network in networks]
    noise = noise_like_data(networks, [0.25, 0.75], 20000, (1, 2, 2))
    expected = 0.25 * weights[0].T @ weights[0] + 0.75 * weights[1].T @ weights[1]
    expected = expected * 4 / expected.trace()
    torch.testing.assert_close(noise.flatten(1).T.cov(), expected, atol=0.1, rtol=0.1)
    white = noise_like_data([nn.Conv2d(1, 2, 2)], [1.0], 20000, (1, 2, 2))
    torch.testing.assert_close(white.flatten(1).T.cov(), torch.eye(4), atol=0.05, rtol=0.0)


def test_networks_in_another_order_are_aligned_with_what_they_began_with() -> None:
    before = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    spec = discover_symmetry(before, torch.randn(2, 4))
    assert aligned([before, before], spec, before) is None
    order = torch.tensor([1, 0, 2, 3, 4, 5])
    other = copy.deepcopy(before)
    with torch.no_grad():
        other[0].weight.copy_(before[0].weight[order])
        other[0].bias.copy_(before[0].bias[order])
        other[2].weight.copy_(before[2].weight[:, order])
    found = aligned([before, other], spec, before)
    assert found is not None
    for name, tensor in found.merge([before, other]).items():
        torch.testing.assert_close(tensor, before.state_dict()[name])
