"""Merge two Hugging Face transformers, folders in, folder out, without a line of Python of your own."""

# %% Needs the extra `hub`
import importlib.util
import sys
import tempfile
from pathlib import Path

import torch

import sinkhorn_rebasin as sr
from experiments.tutorials.truth import check
from sinkhorn_rebasin.cli.main import main

if importlib.util.find_spec("transformers") is None:
    print(
        "Skipped: needs transformers; pip install 'transformers>=4.57', or this package with its extra hub."
    )
    sys.exit(0)

from transformers import GPT2Config, GPT2LMHeadModel

# %% Two models on disk: a small GPT-2, and the same with its heads and hidden units in another order
torch.manual_seed(0)
folder = Path(tempfile.mkdtemp())
first = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=100, n_positions=32)).eval()
tokens = torch.randint(100, (2, 16))
spec = sr.discover_symmetry(first, {"input_ids": tokens})
print(spec)
order = sr.random_permutations(spec, generator=torch.Generator().manual_seed(1))
second = GPT2LMHeadModel(first.config).eval()
second.load_state_dict(sr.permute_state(first.state_dict(), spec, order))
first.save_pretrained(folder / "a")
second.save_pretrained(folder / "b")

# %% The command: `sinkhorn-rebasin diagnose`, then `sinkhorn-rebasin merge`
a, b, out = (str(folder / name) for name in ("a", "b", "merged"))
check(main(["diagnose", a, b]) == 0, "nothing blocks a merge")
check(main(["merge", a, b, "--out", out]) == 0, "the merged model is written")
print(sorted(file.name for file in Path(out).iterdir()))

# %% The folder loads like any other, and the merge undid the reordering
merged = GPT2LMHeadModel.from_pretrained(out).eval()
with torch.no_grad():
    same = torch.allclose(merged(tokens).logits, first(tokens).logits, atol=1e-4)
check(same, "merging a model with its reordered self gives the model")
generated = merged.generate(tokens[:, :4], max_new_tokens=8, do_sample=False, pad_token_id=0)
check(generated.shape == (2, 12), "the merged model generates")

# %% Other vocabularies cannot be merged: exit code 2, with the reason
other = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=90, n_positions=32))
other.save_pretrained(folder / "c")
code = main(["merge", a, str(folder / "c"), "--out", str(folder / "never")])
check(code == 2 and not (folder / "never").exists(), "nothing is written when two models cannot be merged")
