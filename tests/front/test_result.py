from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import DataError
from tests.front.pairs import aligned, trained


def test_it_tells_start_steps_seconds_barriers_and_change() -> None:
    result = aligned()
    told = str(result)
    start = result.starts[result.start].barrier
    for part in (
        result.start.replace("_", " "),
        "40 soft + 10 closing steps",
        f"{result.seconds:.1f} s",
        f"{result.before.barrier:.4f} as it was, {start:.4f} at the start, {result.after.barrier:.4f} now",
        "last 2 of 20 training batches",
        "changed by",
        "16 units in 2 groups, 16 scales",
    ):
        assert part in told
    assert repr(result).startswith("AlignmentResult(Sequential; start")
    assert "\n" not in repr(result)


def test_a_notebook_shows_the_same_rows_as_a_table() -> None:
    shown = aligned()._repr_html_()
    for name, _ in aligned().rows():
        assert f">{name}</th>" in shown


def test_its_alignment_moves_units_as_the_re_basin_does() -> None:
    result = aligned()
    alignment = result.alignment
    moved = alignment.apply(trained(1))
    for name, tensor in result.to_model().state_dict().items():
        torch.testing.assert_close(moved[name], tensor)


def test_it_draws_both_paths() -> None:
    import matplotlib.pyplot as plt

    ax = aligned().plot()
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [text.split(" (")[0] for text in texts] == ["as it was", "aligned"]
    plt.close(ax.figure)
    without = sr.align(trained(0), trained(1), example_inputs=torch.randn(2, 2))
    with pytest.raises(DataError, match="validation="):
        without.plot()


def test_the_ends_of_a_merge_are_the_networks() -> None:
    x = torch.randn(16, 2)
    torch.testing.assert_close(aligned().merge(1.0)(x), trained(0)(x))
    torch.testing.assert_close(aligned().merge(0.0)(x), trained(1)(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rescale", [False, True])
def test_an_alignment_comes_back_from_a_file(rescale: bool, tmp_path: Path) -> None:
    if rescale:
        result = aligned()
        assert any(bool(scale.any()) for scale in result.rebasin.log_scales.values())
    else:
        result = sr.align(trained(0), trained(1), example_inputs=torch.randn(2, 2), rescale=False)
    result.save(tmp_path / "b_to_a.safetensors")
    moved = sr.Alignment.load(tmp_path / "b_to_a.safetensors").apply(trained(1))
    assert all(torch.equal(moved[n], t) for n, t in result.to_model().state_dict().items())
