"""One contract for everything that takes networks: modules, states, checkpoints and paths; nonsense in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.activations.batch_norm import reset_batch_norm
from sinkhorn_rebasin.cli.models.loaded import put_state
from sinkhorn_rebasin.connectivity.simplex import Simplex
from sinkhorn_rebasin.errors import ArchitectureError, AssignmentError, RebasinError
from sinkhorn_rebasin.landscape import random_plane
from sinkhorn_rebasin.permutations.continuous import NO_CONTINUOUS
from tests.data_takers import networks

X = torch.linspace(-1, 1, 24).reshape(8, 3)
DATA = [(X, torch.arange(8) % 2)]


def tensors(found: Any) -> list[Tensor]:
    """What a function gave, as tensors."""
    if isinstance(found, sr.Alignment):
        return list(found.permutations.values())
    if isinstance(found, torch.nn.Module):
        return list(found.state_dict().values())
    return [found[name] for name in sorted(found)] if isinstance(found, dict) else list(found)


def matched(method: Callable[..., sr.Alignment], **options: Any) -> Callable[..., Any]:
    return lambda a, b, spec: method(a, b, spec, **options)


# Everything public that takes a reference and a target, of which one may be weights alone.
PAIRS: dict[str, Callable[[Any, Any, sr.PermutationSpec], Any]] = {
    "weight_matching": matched(sr.weight_matching),
    "greedy_cosine": matched(sr.greedy_cosine),
    "ot_fusion": matched(sr.ot_fusion),
    "activation_matching": matched(sr.activation_matching, data=DATA),
    "simulated_annealing": matched(sr.simulated_annealing, data=DATA, steps=2),
    "straight_through": matched(sr.straight_through, data=DATA, epochs=1),
    "sinkhorn_matching": matched(sr.sinkhorn_matching, data=DATA, loss="midpoint", steps=2),
    "SinkhornRebasin": lambda a, b, spec: sr.SinkhornRebasin(a, b, spec=spec).to_model(),
    "align": lambda a, b, spec: sr.align(a, b, spec=spec, rescale=False, symmetry="permutation").alignment,
    "evaluate_path": lambda a, b, spec: sr.evaluate_path((b, a), DATA, points=3).losses,
    "LinearPath.between": lambda a, b, spec: sr.LinearPath.between(b, a).state_at(0.5),
    "repair": lambda a, b, spec: sr.repair(networks()[0], a, b, spec, DATA),
    "RepairAlongPath": lambda a, b, spec: [
        moments.mean for moments in sr.RepairAlongPath(a, b, spec, DATA).start_moments.values()
    ],
    "ot_fusion_across_widths": lambda a, b, spec: sr.ot_fusion_across_widths(a, b, spec, spec),
}


def forms(folder: Path) -> dict[str, Any]:
    """The target, in every form that it may be given in."""
    state = networks()[1].state_dict()
    save_file(state, folder / "b.safetensors")
    torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in state.items()}}, folder / "b.pt")
    return {
        "state": state,
        "checkpoint": {"epoch": 3, "state_dict": state},
        "DataParallel": {f"module.{name}": tensor for name, tensor in state.items()},
        "compiled": {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
        "Lightning": {
            "state_dict": {f"model.{n}": t for n, t in state.items()} | {"loss.weight": torch.ones(2)}
        },
        "safetensors": folder / "b.safetensors",
        "pt": str(folder / "b.pt"),
    }


@pytest.mark.parametrize("name", PAIRS)
def test_every_form_of_a_network_gives_the_same(name: str, tmp_path: Path) -> None:
    a, b, spec = networks()
    expected = tensors(PAIRS[name](a, b, spec))
    for form, given in forms(tmp_path).items():
        torch.testing.assert_close(tensors(PAIRS[name](a, given, spec)), expected, msg=form)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(
    "nonsense", [[1, 2], 3, None, object(), {"epoch": 3}], ids=lambda n: type(n).__name__
)
def test_nonsense_is_refused_in_one_line(name: str, nonsense: Any) -> None:
    a, _, spec = networks()
    with pytest.raises(RebasinError, match=r"Expected .* but ") as told:
        PAIRS[name](a, nonsense, spec)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", [n for n in PAIRS if n not in ("evaluate_path", "LinearPath.between")])
def test_weights_that_have_no_mean_are_refused_by_name(name: str) -> None:
    if name in ("repair", "RepairAlongPath", "ot_fusion_across_widths"):
        pytest.skip("it measures activations, or has a message of its own")
    a, b, spec = networks()
    broken = dict(b.state_dict())
    broken["a.weight"] = broken["a.weight"].clone()
    broken["a.weight"][1, 2] = torch.nan
    with pytest.raises(ArchitectureError, match=r"'a.weight' of the target holds NaN"):
        PAIRS[name](a, broken, spec)
    spoiled = networks()[0]
    with torch.no_grad():
        spoiled.get_parameter("a.weight")[1, 2] = torch.nan
    with pytest.raises(ArchitectureError, match=r"'a.weight' of the reference holds NaN"):
        PAIRS[name](spoiled, dict(b.state_dict()), spec)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_quantized_weights_are_refused_by_name() -> None:
    a, b, spec = networks()
    state = dict(b.state_dict())
    for coarse in (
        state["a.weight"].to(torch.int8),
        torch.quantize_per_tensor(state["a.weight"], 0.1, 0, torch.qint8),
    ):
        with pytest.raises(ArchitectureError, match=r"int8 in 'a.weight' of the target"):
            sr.weight_matching(a, {**state, "a.weight": coarse}, spec)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated", "ignore:Please use quant_min")
@pytest.mark.parametrize("layer", [torch.nn.Linear(3, 4), torch.nn.LSTM(3, 4)], ids=["linear", "lstm"])
def test_quantized_layers_are_refused_by_name(layer: torch.nn.Module) -> None:
    own = torch.nn.Sequential(torch.nn.Linear(3, 3), layer)
    coarse = torch.ao.quantization.quantize_dynamic(own, {type(layer)})
    own[1] = coarse[1]
    for take in (
        lambda: sr.discover_symmetry(own, torch.zeros(2, 3)),
        lambda: sr.LinearPath.between(own, own),
        lambda: sr.align(own, own, example_inputs=torch.zeros(2, 3)),
        lambda: sr.compare([own, own], own, DATA),
        lambda: random_plane(own),
        lambda: reset_batch_norm(own, DATA),
    ):
        with pytest.raises(ArchitectureError, match="quantized layer '1' packs its own: align or merge"):
            take()


def test_layers_that_are_not_built_are_refused_where_states_are_joined() -> None:
    lazy = torch.nn.Sequential(torch.nn.LazyLinear(2))
    state = {"0.weight": torch.ones(2, 3), "0.bias": torch.ones(2)}
    for take in (
        lambda: sr.LinearPath(lazy, state, state),
        lambda: Simplex(lazy, [state, state]),
        lambda: put_state(lazy, state, "a.pt"),
        lambda: sr.compare([lazy, lazy], lazy, DATA),
        lambda: sr.canonicalize(lazy, networks()[2], NO_CONTINUOUS, X),
    ):
        with pytest.raises(
            ArchitectureError, match=r"uninitialised parameter '0.weight': run it once on its"
        ):
            take()


def test_states_of_layers_that_are_not_built_are_refused_by_name() -> None:
    a, b, spec = networks()
    state = dict(b.state_dict()) | {"a.weight": torch.nn.LazyLinear(6).weight}
    for take in (
        lambda: sr.weight_matching(a, state, spec),
        lambda: sr.LinearPath(a, state, b.state_dict()),
        lambda: Simplex(a, [b.state_dict(), state]),
        lambda: spec.check_state(state),
        lambda: spec.holding(state, "n.weight"),
        lambda: sr.permute_state(state, spec, sr.identity_permutations(spec)),
        lambda: sr.PermutationSpec.from_axes_to_perm({"a.weight": ("P", None)}, state),
    ):
        with pytest.raises(RebasinError, match=r"uninitialised tensor 'a.weight': run it once on its"):
            take()


@pytest.mark.parametrize("nonsense", [[1], None, {"epoch": 3}, "a.pt", torch.nn.Linear], ids=str)
def test_what_is_no_network_is_refused_where_one_is_copied(nonsense: Any) -> None:
    for take in (
        lambda: sr.untie(nonsense),
        lambda: sr.expand(nonsense, ["n.weight"], X),
        lambda: reset_batch_norm(nonsense, DATA),
        lambda: sr.discover_symmetry(nonsense, X),
    ):
        with pytest.raises(ArchitectureError, match=r"Expected a network, an nn\.Module"):
            take()


def test_networks_on_several_devices_are_refused_where_they_are_compared() -> None:
    a, b, _ = networks()
    for members, merged in (([a, torch.nn.DataParallel(b)], b), ([a, b], torch.nn.DataParallel(b))):
        with pytest.raises(ArchitectureError, match=r"the wrapper DataParallel: use its .module"):
            sr.compare(members, merged, DATA)


def test_positions_and_temperatures_that_are_none_are_refused() -> None:
    a, b, spec = networks()
    rebasin = sr.SinkhornRebasin(a, b, spec=spec)
    with pytest.raises(ArchitectureError, match="position but got 'x'"):
        rebasin.merge("x")  # type: ignore[arg-type]
    for wrong in (0.0, -1.0, float("nan"), "x"):
        with pytest.raises(AssignmentError, match="positive finite number but got"):
            sr.SinkhornRebasin(a, b, spec=spec, temperature=wrong)  # type: ignore[arg-type]


def test_pickled_code_is_refused(tmp_path: Path) -> None:
    a, _, spec = networks()
    torch.save({"state_dict": a, "f": Path}, tmp_path / "a.pt")
    with pytest.raises(RebasinError, match="would run code"):
        sr.weight_matching(a, tmp_path / "a.pt", spec)


def test_two_networks_in_one_state_are_told_apart() -> None:
    a, b, spec = networks()
    both = {f"{prefix}.{n}": t for prefix in ("model", "ema") for n, t in b.state_dict().items()}
    with pytest.raises(RebasinError, match=r"several, under 'model\.', 'ema\.'"):
        sr.weight_matching(a, both, spec)
