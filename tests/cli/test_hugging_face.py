"""Folders of Hugging Face, from disk to disk; tiny networks made from their configurations."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sinkhorn_rebasin import discover_symmetry, permute_state, random_permutations
from tests.cli.conftest import Disk
from tests.cli.test_bad_input import refused

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed; it comes with the extra 'hub'"
)

GPT = {"vocab_size": 50, "n_positions": 16, "n_embd": 8, "n_layer": 2, "n_head": 2, "eos_token_id": 0}
TOKENS = torch.arange(24).reshape(3, 8) % 50


def gpt(seed: int = 0, **changes: int) -> Any:
    torch.manual_seed(seed)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**GPT, **changes})).eval()


def bert(seed: int = 0, **changes: int) -> Any:
    torch.manual_seed(seed)
    sizes = {"vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(**sizes, intermediate_size=12, max_position_embeddings=16, **changes)
    return transformers.BertForSequenceClassification(config).eval()


def sentences() -> list[dict[str, Tensor]]:
    return [{"input_ids": TOKENS, "labels": TOKENS}]


def labelled() -> list[dict[str, Tensor]]:
    return [{"input_ids": TOKENS, "labels": torch.tensor([0, 1, 1])}]


def folders(disk: Disk, make: Any = gpt, **options: Any) -> tuple[str, str, str]:
    """Two folders on disk, and one that is to be written."""
    for seed, name in enumerate(("one", "two")):
        make(seed).save_pretrained(disk.folder / name, **options)
    return str(disk.folder / "one"), str(disk.folder / "two"), str(disk.folder / "out")


def test_two_folders_are_aligned_and_applied_without_changing_the_function(disk: Disk) -> None:
    first, second, out = folders(disk)
    file = disk.folder / "two_to_one.safetensors"
    assert disk.run("align", first, second, "--out", file)[0] == 0
    (disk.folder / "two" / "tokenizer.json").write_text("{}")
    (disk.folder / "two" / "vocab.json").write_text("{}")
    code, _, err = disk.run("apply", file, second, "--out", out)
    assert code == 0, err
    moved, before = transformers.GPT2LMHeadModel.from_pretrained(out).eval(), gpt(1)
    with torch.no_grad():
        torch.testing.assert_close(moved(TOKENS).logits, before(TOKENS).logits)
    assert not torch.equal(moved.transformer.wte.weight, before.transformer.wte.weight)
    assert moved.lm_head.weight is moved.transformer.wte.weight
    assert {"tokenizer.json", "vocab.json", "README.md", "config.json"} <= {
        f.name for f in Path(out).iterdir()
    }
    assert disk.run("verify", file, first, second)[0] == 0


@pytest.mark.parametrize("make", [gpt, bert])
def test_two_folders_are_merged_in_one_command(disk: Disk, make: Any) -> None:
    first, second, out = folders(disk, make, max_shard_size="2KB")
    assert len(list(Path(first).glob("*.safetensors"))) > 1
    data = f"tests.cli.test_hugging_face:{'sentences' if make is gpt else 'labelled'}"
    code, _, err = disk.run("merge", first, second, "--data", data, "--out", out)
    assert code == 0, err
    merged = type(make()).from_pretrained(out).eval()
    assert merged(TOKENS).logits.isfinite().all()
    card = (Path(out) / "README.md").read_text()
    assert '- "one"\n- "two"' in card
    assert "loss barrier between the two" in card
    if make is gpt:
        assert merged.generate(TOKENS[:1], max_new_tokens=3, do_sample=False).shape == (1, 11)


def test_the_path_is_measured_by_the_models_own_loss(disk: Disk) -> None:
    first, second, out = folders(disk)
    options = ["--data", "tests.cli.test_hugging_face:sentences", "--points", "3", "--out", out]
    code, _, err = disk.run("path", first, second, *options)
    assert code == 0, err
    aligned = json.loads((Path(out) / "path.json").read_text())["aligned"]
    with torch.no_grad():
        expected = [gpt(seed)(TOKENS, labels=TOKENS).loss.item() for seed in (1, 0)]
    assert [aligned["losses"][0], aligned["losses"][-1]] == pytest.approx(expected, rel=1e-5)


def test_types_of_the_checkpoint_are_kept(disk: Disk) -> None:
    first, second, out = folders(disk, lambda seed: gpt(seed).bfloat16())
    code, _, err = disk.run("merge", first, second, "--out", out)
    assert code == 0, err
    merged = transformers.GPT2LMHeadModel.from_pretrained(out, dtype="auto")
    assert merged.dtype == torch.bfloat16


def test_a_merged_folder_writes_what_its_parents_write(disk: Disk) -> None:
    first, second, out = folders(disk)
    network = gpt(0)
    spec = discover_symmetry(network, {"input_ids": TOKENS})
    order = random_permutations(spec, generator=torch.Generator().manual_seed(0))
    network.load_state_dict(permute_state(network.state_dict(), spec, order))
    network.save_pretrained(second)
    code, _, err = disk.run("merge", first, second, "--out", out)
    assert code == 0, err
    merged = transformers.GPT2LMHeadModel.from_pretrained(out).eval()
    assert merged.lm_head.weight is merged.transformer.wte.weight
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    written = [model.generate(TOKENS[:1, :3], **options).tolist() for model in (gpt(0), network, merged)]
    assert written[0] == written[1] == written[2]


def test_heads_of_other_classes_are_kept_apart(disk: Disk) -> None:
    first, second, out = folders(disk, bert)
    network = bert(1, num_labels=5)
    network.save_pretrained(second)
    file, moved = disk.folder / "b_to_a.safetensors", disk.folder / "moved"
    code, said, err = disk.run("align", first, second, "--ignore", "classifier", "--out", file)
    assert code == 0, err
    assert "kept apart: classifier.bias, classifier.weight" in said
    assert disk.run("apply", file, second, "--out", moved)[0] == 0
    with torch.no_grad():
        aligned = type(network).from_pretrained(moved).eval()
        torch.testing.assert_close(aligned(TOKENS).logits, network(TOKENS).logits)
    for options in ([], ["--alignment", file]):  # the second writes tensor by tensor
        code, said, err = disk.run("merge", first, second, *options, "--out", out, "--force")
        assert code == 0, err
        merged = type(network).from_pretrained(out).eval()
        assert torch.equal(merged.classifier.weight, bert(0).classifier.weight)
        half = (aligned.bert.pooler.dense.weight + bert(0).bert.pooler.dense.weight) / 2
        torch.testing.assert_close(merged.bert.pooler.dense.weight, half)
        assert (
            "not mixed | classifier.bias, classifier.weight: those of one"
            in (Path(out) / "README.md").read_text()
        )


def test_another_vocabulary_is_told(disk: Disk) -> None:
    first, second, out = folders(disk)
    gpt(1, vocab_size=60).save_pretrained(second)
    for verb in (["merge", first, second, "--out", out], ["diagnose", first, second]):
        said = refused(disk, 2, *verb)
        assert f"Expected one vocabulary but {first} has 50 tokens and {second} 60" in said


def test_another_class_and_other_widths_are_told(disk: Disk) -> None:
    first, second, out = folders(disk)
    bert().save_pretrained(second)
    assert "is a GPT2LMHeadModel and" in refused(disk, 2, "merge", first, second, "--out", out)
    gpt(1, n_inner=40).save_pretrained(second)
    said = refused(disk, 2, "merge", first, second, "--out", out)
    assert (
        "'transformer.h.0.mlp.c_fc.weight' to have one shape in both networks but got (8, 32) and (8, 40)"
        in said
    )


def test_a_missing_shard_and_one_cut_short_are_told(disk: Disk) -> None:
    first, second, out = folders(disk, max_shard_size="2KB")
    shard = sorted(Path(second).glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-10])
    said = refused(disk, 2, "merge", first, second, "--out", out)
    assert f"Expected whole weights in {shard} but it was cut short" in said
    shard.unlink()
    said = refused(disk, 2, "merge", first, second, "--out", out)
    assert (
        f"Expected weights in {shard} but there is no such file: the index names it, so a shard is missing"
        in said
    )


def test_a_missing_or_broken_config_is_told(disk: Disk) -> None:
    first, second, out = folders(disk)
    config = Path(second) / "config.json"
    text = json.loads(config.read_text())
    config.write_text(json.dumps({**text, "architectures": ["Mine"]}))
    assert "got 'Mine', which transformers" in refused(disk, 2, "merge", first, second, "--out", out)
    config.write_text(json.dumps({**text, "n_embd": 4}))
    assert "that fit its config.json" in refused(disk, 2, "merge", first, second, "--out", out)
    config.write_text("{")
    assert "Expected JSON in" in refused(disk, 2, "merge", first, second, "--out", out)
    config.unlink()
    assert "has no config.json" in refused(disk, 2, "merge", first, second, "--out", out)


def test_pickled_weights_alone_are_not_read(disk: Disk) -> None:
    first, second, out = folders(disk)
    (Path(second) / "model.safetensors").rename(Path(second) / "pytorch_model.bin")
    assert "holds a pickle, which is not read" in refused(disk, 2, "merge", first, second, "--out", out)


def test_without_transformers_the_message_says_how_to_install_it(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, out = folders(disk)
    from sinkhorn_rebasin.cli.models import zoos

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(zoos.importlib, "import_module", missing)
    said = refused(disk, 2, "merge", first, second, "--out", out)
    assert "pip install 'sinkhorn-rebasin-layer[hub]'" in said


def llama(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads)).eval()


@pytest.mark.parametrize("make", [gpt, llama])
def test_merging_by_a_file_reads_no_model_and_writes_what_merging_in_memory_does(
    disk: Disk, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, out = folders(disk, make, max_shard_size="4KB")
    file, streamed = disk.folder / "b_to_a.safetensors", disk.folder / "streamed"
    assert disk.run("align", first, second, "--out", file)[0] == 0
    code, _, err = disk.run("merge", first, second, "--at", "0.3", "--out", out)
    assert code == 0, err
    monkeypatch.setattr("sinkhorn_rebasin.cli.verbs.merge.load_pair", None)
    monkeypatch.setattr("sinkhorn_rebasin.cli.verbs.apply.load_model", None)
    code, _, err = disk.run("merge", first, second, "--alignment", file, "--at", "0.3", "--out", streamed)
    assert code == 0, err
    assert disk.run("apply", file, second, "--out", disk.folder / "moved")[0] == 0
    kinds = [type(make()).from_pretrained(folder).state_dict() for folder in (out, streamed)]
    assert all(torch.equal(tensor, kinds[1][name]) for name, tensor in kinds[0].items())
    index = "model.safetensors.index.json"
    assert (streamed / index).read_bytes() == (Path(first) / index).read_bytes()


def test_streaming_refuses_another_network_and_a_full_disk_and_leaves_nothing(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, out = folders(disk)
    file = disk.folder / "b_to_a.safetensors"
    assert disk.run("align", first, second, "--out", file)[0] == 0
    said = refused(disk, 2, "merge", second, first, "--alignment", file, "--out", out)
    assert "the first tensor with other values" in said

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sinkhorn_rebasin.cli.streaming.rewrite", full)
    assert "No space left on device" in refused(disk, 2, "apply", file, second, "--out", out)
