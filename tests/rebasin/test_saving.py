"""Saved, loaded, copied and converted re-basins compute the same."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch as safetensors
import torch
from torch import Tensor, nn

from sinkhorn_rebasin import SinkhornRebasin
from sinkhorn_rebasin.errors import CheckpointError
from sinkhorn_rebasin.permutations import Group, Layout, PermutationSpec, Slot
from tests.rebasin.rebasin_problems import NETWORKS, TiedLayers, built, call, inputs, mlp, network, relative


class TestSavingAndCopying:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_state_dict_round_trip_into_another_pair(self, name: str, tmp_path: Path) -> None:
        _, _, rebasin = built(name)
        rebasin.train()
        rebasin(inputs(name), at=0.5)
        rebasin.temperature.fill_(0.3)
        torch.save(rebasin.state_dict(), tmp_path / "state.pt")
        other = SinkhornRebasin(network(name, 8), network(name, 9), inputs(name))
        other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        for mode in (True, False):
            rebasin.train(mode), other.train(mode)
            assert torch.equal(other(inputs(name), at=0.5), rebasin(inputs(name), at=0.5))

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
    @pytest.mark.parametrize("name", NETWORKS)
    def test_copies_compute_the_same_and_are_independent(self, name: str, copied: Any) -> None:
        _, target, rebasin = built(name)
        rebasin(inputs(name), at=0.5)
        other = copied(rebasin)
        rebasin.eval(), other.eval()
        expected = rebasin(inputs(name), at=0.5)
        assert torch.equal(other(inputs(name), at=0.5), expected)
        assert relative(call(other.to_model(), inputs(name)), call(target, inputs(name))) < 1e-5
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.copy_(torch.eye(parameter.shape[-1]).expand_as(parameter))
        assert torch.equal(rebasin(inputs(name), at=0.5), expected)
        with pytest.raises(CheckpointError):
            other.load_state_dict({})

    def test_dtype_moves_everything_and_back(self) -> None:
        _, _, rebasin = built("residual")
        rebasin.to(torch.float64)
        floats = [t for t in rebasin.state_dict().values() if t.is_floating_point()]
        assert {t.dtype for t in floats} == {torch.float64}
        rebasin(inputs("residual").double(), at=0.5).sum().backward()
        rebasin.float()
        assert rebasin(inputs("residual"), at=0.5).dtype == torch.float32

    def test_extra_state_of_networks_is_carried(self) -> None:
        class Counting(nn.Linear):
            count = 3

            def get_extra_state(self) -> dict[str, int]:
                return {"count": self.count}

            def set_extra_state(self, state: dict[str, int]) -> None:
                self.count = state["count"]

        pair = [nn.Sequential(Counting(4, 6), nn.ReLU(), nn.Linear(6, 2)) for _ in range(2)]
        rebasin = SinkhornRebasin(*pair, torch.randn(3, 4))
        rebasin.load_state_dict(copy.deepcopy(rebasin).state_dict())
        assert list(rebasin.to_model().state_dict()) == list(pair[1].state_dict())

    @pytest.mark.parametrize(
        ("other", "text"),
        [
            (lambda: SinkhornRebasin(mlp(9), mlp(9), inputs("mlp")), r"shape \(8, 5\).*\(9, 5\)"),
            (lambda: SinkhornRebasin(TiedLayers(), TiedLayers(), inputs("tied")), "another network"),
        ],
    )
    def test_a_checkpoint_of_another_network_changes_nothing(self, other: Any, text: str) -> None:
        _, _, rebasin = built()
        kept = {name: tensor.clone() for name, tensor in rebasin.state_dict().items()}
        with pytest.raises(CheckpointError, match=text):
            rebasin.load_state_dict(other().state_dict())
        with pytest.raises(CheckpointError, match="another network"):
            rebasin.load_state_dict({**kept, "temperature": torch.tensor(9.0), "scores.9": torch.rand(3, 3)})
        assert all(torch.equal(tensor, kept[name]) for name, tensor in rebasin.state_dict().items())

    def test_recurrent_layers_keep_no_graph_of_their_last_run(self) -> None:
        class Recurrent(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.rnn, self.hidden, self.out = nn.RNN(3, 4), nn.Linear(4, 5), nn.Linear(5, 2)

            def forward(self, x: Tensor) -> Tensor:
                return self.out(self.hidden(self.rnn(x)[1][0]).relu())

        layouts = [("hidden.weight", (0,)), ("hidden.bias", (0,)), ("out.weight", (1,))]
        target = Recurrent()
        spec = PermutationSpec(
            (Group("hidden", 5),),
            tuple(Slot("hidden", tensor, axes, Layout(1, 5)) for tensor, axes in layouts),
            {name: tuple(p.shape) for name, p in target.named_parameters()},
        )
        x = torch.randn(6, 2, 3)
        rebasin = SinkhornRebasin(Recurrent(), target, x, spec=spec, start="identity", noise=1.0)
        state = {name: tensor.clone().requires_grad_() * 1.0 for name, tensor in target.state_dict().items()}
        used = weakref.ref(state["rnn.weight_hh_l0"])
        rebasin.run(state, x)
        del state
        gc.collect()
        assert used() is None
        other = copy.deepcopy(rebasin).eval()
        assert relative(other(x), target(x)) < 1e-5
        assert relative(other.to_model()(x), target(x)) < 1e-5

    @pytest.mark.parametrize("name", NETWORKS)
    def test_a_file_of_safetensors_is_loaded(self, name: str, tmp_path: Path) -> None:
        reference, target, rebasin = built(name)
        other = SinkhornRebasin(reference, target, inputs(name), start="identity")
        safetensors.save_model(rebasin, str(tmp_path / "rebasin.safetensors"))
        safetensors.load_model(other, str(tmp_path / "rebasin.safetensors"))
        rebasin.eval(), other.eval()
        for at in (0.0, 0.5, 1.0):
            assert torch.equal(other(inputs(name), at=at), rebasin(inputs(name), at=at))

    def test_one_name_of_a_tied_tensor_is_enough_for_a_checkpoint(self) -> None:
        _, _, rebasin = built("tied")
        kept = {name: value for name, value in rebasin.state_dict().items() if "third.weight" not in name}
        other = SinkhornRebasin(network("tied", 8), network("tied", 9), inputs("tied"))
        for twin in (other, copy.deepcopy(other).double().float()):  # converted, tied buffers come apart
            twin.load_state_dict(kept, strict=False)
            assert torch.equal(twin.eval()(inputs("tied"), at=0.5), rebasin.eval()(inputs("tied"), at=0.5))

    @pytest.mark.parametrize("prefix", ["module.", "rebasin."])
    def test_the_prefix_of_a_wrapper_is_named(self, prefix: str) -> None:
        _, _, rebasin = built()
        with pytest.raises(CheckpointError, match=f"'{prefix}'"):
            rebasin.load_state_dict({prefix + name: value for name, value in rebasin.state_dict().items()})


def test_a_checkpoint_from_before_the_rooms_moved_still_loads() -> None:
    def network() -> nn.Module:
        return nn.Sequential(
            nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3)
        ).eval()

    saved = torch.load(Path(__file__).parent / "files" / "checkpoint_before_the_rooms_moved.pt")
    torch.manual_seed(0)
    networks, x = (network(), network()), torch.randn(16, 4)
    rebasin = SinkhornRebasin(*networks, x, rescale=True)
    assert not torch.allclose(rebasin.eval()(x, at=0.3), saved["out"], atol=1e-3)
    rebasin.load_state_dict(saved["state"])
    torch.testing.assert_close(rebasin.eval()(x, at=0.3), saved["out"])
