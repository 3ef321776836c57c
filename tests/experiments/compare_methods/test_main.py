"""The comparison runs, leaves what it says it leaves, and goes on where it was stopped."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experiments.compare_methods import __main__ as command
from experiments.compare_methods import ours
from experiments.compare_methods.methods import METHODS, PUBLISHED, Method, runnable
from experiments.compare_methods.pair import Outcome, Pair
from experiments.compare_methods.setting import Evaluation, Recipe, Setting, load_setting
from experiments.compare_methods.store import Store
from experiments.data import load_digits, load_mnist
from experiments.models import build_model
from experiments.reporting.receipts import read_receipt
from sinkhorn_rebasin.errors import DataError

DATA = Path("../shared/data")
TINY = """
title: digits, MLP 1x16
data: digits
model: mlp
arguments: {inputs: 64, widths: [16]}
training: {epochs: 8}
seeds: [[0, 1]]
budget: {images: 500, epochs: 1, annealing_images: 100, proposals: 20, matching_steps: 10}
recipe: {steps: 40, cycles: 2, closing_steps: 20, evaluate_every: 10, validation_samples: 150}
evaluation: {points: 5, test_images: 200, train_images: 200, repair_images: 200}
"""


@pytest.fixture(autouse=True)
def threads():  # type: ignore[no-untyped-def]
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(tmp_path: Path, *options: str, setting: str = TINY) -> dict:
    """The command on a tiny setting; its receipt."""
    file = tmp_path / "tiny.yaml"
    file.write_text(setting, encoding="utf-8")
    places = ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    command.main([str(file), *places, *options])
    return read_receipt(tmp_path / "out" / "tiny")


def test_every_method_has_a_row_and_none_changes_the_function(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    receipt = run(tmp_path)
    rows = {row["method"]: row for row in receipt["metrics"]["rows"]}
    assert list(rows) == runnable(None)
    assert all(row["relative_change"] < 1e-5 for row in rows.values())
    assert rows["ours"]["test_barrier"] < rows["naive"]["test_barrier"]
    assert rows["naive"]["repaired_barrier"] != rows["naive"]["test_barrier"]
    assert "straight-through" in capsys.readouterr().out
    for name in ("paths.png", "paths_repair.png", "agreement.png"):
        assert (tmp_path / "out" / "tiny" / name).stat().st_size > 5000
    network = build_model("mlp", inputs=64, widths=[16])
    rebased = list((tmp_path / "out" / "tiny" / "finished").glob("*-rebased.safetensors"))
    assert len(rebased) == len(rows)
    for file in rebased:
        network.load_state_dict(load_file(file))


@pytest.mark.slow
def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three = ("--methods", "naive", "weight matching", "greedy cosine")
    ran: list[str] = []

    def stopping(pair: Pair, setting: Setting) -> Outcome:
        raise KeyboardInterrupt

    def counted(name: str):  # type: ignore[no-untyped-def]
        def method(pair: Pair, setting: Setting) -> Outcome:
            ran.append(name)
            return METHODS[name].align(pair, setting)

        return Method(method, METHODS[name].kind)

    first = {name: counted(name) for name in three[1:]}
    monkeypatch.setattr(command, "METHODS", {**first, "greedy cosine": Method(stopping, "peer")})
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, *three)
    assert ran == ["naive", "weight matching"]
    monkeypatch.setattr(command, "METHODS", first)
    receipt = run(tmp_path, *three)
    assert ran == ["naive", "weight matching", "greedy cosine"]
    assert [row["method"] for row in receipt["metrics"]["rows"]] == ran
    assert run(tmp_path, "--tables")["metrics"] == receipt["metrics"]
    assert len(ran) == 3
    receipt = run(tmp_path, "--methods", "naive", "--again", "naive")
    assert ran[3:] == ["naive"]
    assert [row["method"] for row in receipt["metrics"]["rows"]] == ran[:3]
    receipt = run(tmp_path, *three[:2], setting=TINY.replace("points: 5", "points: 3"))
    assert ran[4:] == ["naive"]
    assert [row["method"] for row in receipt["metrics"]["rows"]] == ["naive"]
    run(tmp_path, *three, "--threads", "2")
    assert ran[5:] == ["naive", "weight matching", "greedy cosine"]


def test_a_method_that_fails_or_changes_the_function_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(pair: Pair, setting: Setting) -> Outcome:
        raise RuntimeError("cannot do this network")

    def wrong(pair: Pair, setting: Setting) -> Outcome:
        return Outcome({name: tensor.flip(0) for name, tensor in pair.target.state_dict().items()}, 0.0)

    broken = {"straight-through": Method(raising, "peer"), "OT fusion": Method(wrong, "peer")}
    monkeypatch.setattr(command, "METHODS", {"naive": METHODS["naive"], **broken})
    metrics = run(tmp_path)["metrics"]
    assert [row["method"] for row in metrics["rows"]] == ["naive"]
    assert metrics["without"]["straight-through"] == "RuntimeError: cannot do this network"
    assert "changes the function" in metrics["without"]["OT fusion"]


def test_what_cannot_do_nested_groups_is_left_out_and_the_rest_goes_on(tmp_path: Path) -> None:
    vit = "model: vit\narguments: {size: 8, patch: 4, width: 16, depth: 1, heads: 2, channels: 1}"
    setting = TINY.replace("model: mlp\narguments: {inputs: 64, widths: [16]}", vit).replace(
        "epochs: 8", "epochs: 1"
    )
    metrics = run(tmp_path, "--methods", "OT fusion", "weight matching", setting=setting)["metrics"]
    assert [row["method"] for row in metrics["rows"]] == ["weight matching"]
    assert "Expected groups without nesting" in metrics["without"]["OT fusion"]


def test_a_published_row_is_shown_where_its_environment_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def looking(pair: Pair, setting: Setting) -> Outcome:
        seen.append(pair.published_python)
        return Outcome(pair.target.state_dict(), 0.0)

    monkeypatch.setattr(command, "METHODS", {**METHODS, PUBLISHED: Method(looking, "peer")})
    run(tmp_path, "--methods", "naive", PUBLISHED, "--published-python", "an/environment")
    assert seen == [Path("an/environment")]
    receipt = run(tmp_path, "--tables")
    assert [row["method"] for row in receipt["metrics"]["rows"]] == ["naive", PUBLISHED]
    with pytest.raises(SystemExit):
        run(tmp_path, "--methods", PUBLISHED)
    assert f"but got '{PUBLISHED}'" in capsys.readouterr().err


def test_nothing_to_show_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY + 'without: {"naive": "no reason"}\n', encoding="utf-8")
    places = ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    command.main([str(file), *places, "--methods", "naive"])
    assert "no method has a row" in capsys.readouterr().out


def test_permutations_of_another_setting_are_not_taken(tmp_path: Path) -> None:
    run(tmp_path, "--methods", "weight matching")
    setting, data = load_setting(str(tmp_path / "tiny.yaml")), load_digits()
    store = Store(tmp_path / "out" / "tiny", setting, data, 1)
    assert store.permutations((0, 1), "weight matching")
    longer = dataclasses.replace(setting, training=dataclasses.replace(setting.training, epochs=9))
    flipped = dataclasses.replace(data, test_images=data.test_images.flip(0))
    for other in (
        Store(tmp_path / "out" / "tiny", longer, data, 1),
        Store(store.folder.parent, setting, flipped, 1),
    ):
        assert not other.permutations((0, 1), "weight matching")
        assert other.row((0, 1), "weight matching") is None


def test_a_new_recipe_has_our_rows_measured_anew_and_a_new_budget_the_others(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY, encoding="utf-8")
    setting, data = load_setting(str(file)), load_digits()
    state = build_model("mlp", inputs=64, widths=[16]).state_dict()
    store = Store(tmp_path, setting, data, 1)
    for method in ("ours", "naive"):
        store.keep((0, 1), method, Outcome(state, 0.0), {"method": method})
    for field, changed in (("recipe", "ours"), ("budget", "naive")):
        other = dataclasses.replace(getattr(setting, field), batch_size=17)
        found = Store(tmp_path, dataclasses.replace(setting, **{field: other}), data, 1)
        for method in ("ours", "naive"):
            assert (found.row((0, 1), method) is None) == (method == changed)


def test_a_row_older_than_a_part_of_the_setting_holds_at_its_default(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY, encoding="utf-8")
    setting, data = load_setting(str(file)), load_digits()
    state = build_model("mlp", inputs=64, widths=[16]).state_dict()
    assert setting.evaluation.train_images != Evaluation().train_images
    setting = dataclasses.replace(setting, evaluation=Evaluation())  # a part that is its default as a whole
    store = Store(tmp_path, setting, data, 1)
    store.keep((0, 1), "naive", Outcome(state, 0.0), {"method": "naive"})
    (path,) = store.folder.glob("*.json")
    kept = json.loads(path.read_text(encoding="utf-8"))
    plain = kept["key"]["setting"]
    del plain["held_out"], plain["budget"]["batch_size"]
    for part in (plain["evaluation"], plain):  # one of its numbers, then the whole of it
        del part["points" if part is not plain else "evaluation"]
        path.write_text(json.dumps(kept), encoding="utf-8")
        assert store.row((0, 1), "naive") == {"method": "naive"}
    longer = dataclasses.replace(setting, budget=dataclasses.replace(setting.budget, batch_size=7))
    for other in (longer, dataclasses.replace(setting, held_out=5)):
        assert Store(tmp_path, other, data, 1).row((0, 1), "naive") is None


def test_ours_decides_on_images_no_network_has_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def looking(pair: Pair, setting: Setting) -> Outcome:
        seen.append(pair)
        return Outcome(pair.target.state_dict(), 0.0)

    monkeypatch.setattr(command, "METHODS", {"naive": Method(looking, "peer")})
    run(tmp_path, setting=TINY + "held_out: 100\n")
    data, pair = load_digits(), seen[0]
    assert torch.equal(torch.cat([pair.data.train_images, pair.unseen[0]]), data.train_images)
    batches = ours.held_out_of(pair, dataclasses.replace(Recipe(), validation_samples=40))
    assert torch.equal(torch.cat([labels for _, labels in batches]), pair.unseen[1][:40])
    assert len(ours.data_of(pair, Recipe()).train_indices) == len(data.train_labels) - 100


def test_the_overview_has_a_column_a_setting(tmp_path: Path) -> None:
    run(tmp_path, "--methods", "naive", "weight matching")
    other = tmp_path / "other.yaml"
    other.write_text(TINY.replace("1x16", "again"), encoding="utf-8")
    places = ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    command.main([str(other), *places, "--methods", "naive"])
    metrics = read_receipt(tmp_path / "out")["metrics"]
    naive, matched = metrics["barrier"]
    assert set(naive) == {"method", "digits, MLP 1x16", "digits, MLP again"}
    assert matched["digits, MLP again"] == "–"
    assert [line["peers"] for line in metrics["lead"]] == [2, 1]
    receipt = json.loads((tmp_path / "out" / "tiny" / "receipt.json").read_text(encoding="utf-8"))
    assert naive["digits, MLP 1x16"] == f"{receipt['metrics']['table'][0]['test_barrier']:.3f}"


@pytest.mark.slow
def test_the_barrier_on_mnist_is_at_most_half_of_the_best_matching_methods(tmp_path: Path) -> None:
    try:
        load_mnist(DATA)
    except DataError as error:
        pytest.skip(f"no MNIST: {error}")
    places = ["--root", str(DATA), "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    command.main(["mnist_mlp_32", "--pairs", "1", *places])
    rows = {row["method"]: row for row in read_receipt(tmp_path / "out" / "mnist_mlp_32")["metrics"]["rows"]}
    ours = rows.pop("ours")["test_barrier"]
    peers = [
        row["test_barrier"] for name, row in rows.items() if "Sinkhorn" not in name and "ours" not in name
    ]
    assert ours <= 0.5 * min(peers)
