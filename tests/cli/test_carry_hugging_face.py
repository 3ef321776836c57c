"""``carry`` on folders of Hugging Face: tensor by tensor where an alignment is given, in memory otherwise."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import sinkhorn_rebasin as sr
from sinkhorn_rebasin import discover_symmetry, permute_state, random_permutations
from tests.cli.conftest import Disk
from tests.cli.test_bad_input import refused

pytest.importorskip("transformers", reason="transformers is not installed; it comes with the extra 'hub'")

from tests.cli.test_hugging_face import TOKENS, gpt


def tuned_gpt(seed: int = 0) -> Any:
    network = gpt(seed)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return network


def reordered(network: Any) -> Any:
    twin = gpt()
    spec = discover_symmetry(network, {"input_ids": TOKENS})
    order = random_permutations(spec, generator=torch.Generator().manual_seed(0))
    twin.load_state_dict(permute_state(network.state_dict(), spec, order))
    return twin


def folders(disk: Disk, planted: bool = True, **options: Any) -> list[str]:
    networks = {"tuned": tuned_gpt(), "base": gpt(0), "new": reordered(gpt(0)) if planted else gpt(1)}
    for name, network in networks.items():
        network.save_pretrained(disk.folder / name, **options)
    return [str(disk.folder / name) for name in networks]


def test_the_carried_folder_computes_what_the_fine_tune_does(disk: Disk) -> None:
    tuned, base, new = folders(disk)
    file = disk.folder / "alignment.safetensors"
    assert disk.run("align", new, base, "--out", file)[0] == 0
    arguments = ["carry", tuned, base, new, "--alignment", file, "--scale", "1", "--out", disk.folder / "out"]
    code, _, err = disk.run(*arguments)
    assert code == 0, err
    carried = type(gpt()).from_pretrained(disk.folder / "out").eval()
    with torch.no_grad():
        torch.testing.assert_close(carried(TOKENS).logits, tuned_gpt()(TOKENS).logits, atol=1e-4, rtol=1e-4)
        assert (carried(TOKENS).logits - gpt(0)(TOKENS).logits).abs().max() > 0.01
    assert carried.lm_head.weight is carried.transformer.wte.weight
    assert '- "new"\n- "tuned"\n- "base"' in (disk.folder / "out" / "README.md").read_text()


def test_carrying_by_a_file_reads_no_model_and_writes_what_carrying_in_memory_does(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned, base, new = folders(disk, planted=False, max_shard_size="4KB")
    file, out, streamed = (disk.folder / name for name in ("alignment.safetensors", "out", "streamed"))
    assert disk.run("align", new, base, "--out", file)[0] == 0
    arguments = ["carry", tuned, base, new, "--alignment", file, "--scale", "0.5"]
    with monkeypatch.context() as patch:
        patch.setattr("sinkhorn_rebasin.cli.verbs.carry.load_model", None)
        code, _, err = disk.run(*arguments, "--out", streamed)
        assert code == 0, err
    with monkeypatch.context() as patch:
        patch.setattr("sinkhorn_rebasin.cli.verbs.carry._streamed", lambda *_: False)
        code, _, err = disk.run(*arguments, "--out", out)
        assert code == 0, err
    states = [type(gpt()).from_pretrained(folder).state_dict() for folder in (out, streamed)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert not torch.equal(states[0]["lm_head.weight"], gpt(1).state_dict()["lm_head.weight"])
    index = "model.safetensors.index.json"
    assert (streamed / index).read_bytes() == (Path(new) / index).read_bytes()
    cards = [(folder / "README.md").read_text() for folder in (out, streamed)]
    assert cards[0] == cards[1]


def test_streaming_refuses_what_it_cannot_carry_and_leaves_nothing(disk: Disk) -> None:
    tuned, base, new = folders(disk, planted=False)
    file = disk.folder / "alignment.safetensors"
    assert disk.run("align", new, base, "--out", file)[0] == 0
    options = ["--alignment", file, "--out", disk.folder / "out"]
    said = refused(disk, 2, "carry", tuned, new, base, *options)
    assert "the first tensor with other values" in said
    said = refused(disk, 2, "carry", base, base, new, *options)
    assert "there is nothing to carry" in said
    gpt(1, n_inner=40).save_pretrained(tuned)
    said = refused(disk, 2, "carry", tuned, base, new, *options)
    assert "'transformer.h.0.mlp.c_fc.weight' has the shapes (8, 40) and (8, 32)" in said
    network = tuned_gpt()
    with torch.no_grad():
        network.transformer.ln_f.bias[1] = torch.inf
    network.save_pretrained(tuned)
    said = refused(disk, 2, "carry", tuned, base, new, *options)
    assert "Expected a finite update but 'transformer.ln_f.bias'" in said


def test_an_adapter_of_another_base_is_refused_by_the_name_in_its_config(disk: Disk) -> None:
    _, base, new = folders(disk)
    factors = {
        "transformer.h.0.attn.c_attn.lora_A.weight": torch.ones(2, 8),
        "transformer.h.0.attn.c_attn.lora_B.weight": torch.ones(24, 2),
    }
    file = disk.folder / "alignment.safetensors"
    assert disk.run("align", new, base, "--out", file)[0] == 0
    arguments = ["carry", base, new, "--adapter", disk.folder / "lora", "--alignment", file, "--out"]
    config = {"peft_type": "LORA", "lora_alpha": 2}
    sr.Adapter({**config, "base_model_name_or_path": "org/another"}, factors).save(disk.folder / "lora")
    said = refused(disk, 2, *arguments, disk.folder / "out")
    assert f"which its config says is 'org/another', but got {base!r}" in said
    shutil.copytree(base, disk.folder / "copy")
    for number, name in enumerate((base, str(disk.folder / "copy"), "org/base")):
        sr.Adapter({**config, "base_model_name_or_path": name}, factors).save(disk.folder / "lora")
        code, _, err = disk.run(*arguments, disk.folder / f"out{number}")
        assert code == 0, err
        written = sr.Adapter.load(disk.folder / f"out{number}")
        assert written.config["base_model_name_or_path"] == new
    sr.Adapter({**config, "base_model_name_or_path": new}, factors).save(disk.folder / "lora")
    assert "which its config says is" in refused(disk, 2, *arguments, disk.folder / "out")
