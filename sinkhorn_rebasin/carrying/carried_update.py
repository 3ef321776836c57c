"""An update in a new base's coordinates: apply it, look at it, keep it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.carrying.update import differing_heads, wide
from sinkhorn_rebasin.errors import ArchitectureError, CheckpointError
from sinkhorn_rebasin.files.fingerprint import Fingerprint
from sinkhorn_rebasin.files.update_file import read_update, write_update
from sinkhorn_rebasin.networks.architecture import named_tensors, tensors_of
from sinkhorn_rebasin.networks.copying import Module, standalone_copy


@dataclass(frozen=True, eq=False, repr=False)
class CarriedUpdate:
    """Hold an update that was carried to a new base.

    Attributes:
        state: the update of every parameter of the new base, at scale one.
        scales: what each is multiplied by.
        way: how it was carried.
        new_base: fingerprint of the network that it is for.
        frame: that network in the form that the update is for, where its function is kept in another form; else
            empty.
        buffers: running statistics that were measured anew on data; empty where the new base's are kept.
        judged: loss on held-out data by scale; empty without data. Scale 0 is the new base.
        notes: anything else worth knowing, a sentence each.
    """

    state: State
    scales: Mapping[str, float]
    way: str
    new_base: Fingerprint
    frame: State = field(default_factory=dict)
    buffers: State = field(default_factory=dict)
    judged: Mapping[float, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def apply(self, new_base: Module, scale: float = 1.0) -> Module:
        r"""Copy the new base with the update added, :math:`\theta + s\,\Delta`.

        At scale 0 the copy is the new base to the bit.

        Args:
            new_base: the network it was carried for; it is not changed.
            scale: what all scales are multiplied by.

        Raises:
            ArchitectureError: the network is another one; the first tensor that differs is named.
        """
        self.check_new_base(new_base)
        twin = standalone_copy(new_base)
        factors = {name: scale * self.scales[name] for name in self.state}
        if not any(factors.values()):
            return twin
        with torch.no_grad():
            for name, tensor in {**dict(twin.named_parameters()), **dict(twin.named_buffers())}.items():
                start = self.frame.get(name, tensor)
                if name in self.state and factors[name]:
                    added = wide(start) + factors[name] * wide(self.state[name]).to(tensor.device)
                    tensor.copy_(added.to(tensor.dtype))
                elif name in self.frame or name in self.buffers:
                    tensor.copy_(self.buffers.get(name, start))
        return twin

    def check_new_base(self, network: nn.Module) -> None:
        """Raise ArchitectureError unless a network is the one that the update is for."""
        state = tensors_of(network)
        missing = next((name for name in self.new_base.tensors if name not in state), None)
        if missing is not None:
            raise ArchitectureError(
                f"Expected the new base that the update was carried for but {missing!r} is missing."
            )
        try:
            self.new_base.check(state, "new base")
        except ArchitectureError as error:
            raise ArchitectureError(
                str(error).split(" To move it")[0].replace("this alignment", "this update")
            ) from None

    def norms(self) -> dict[str, float]:
        """Return the norm of every module's update, scales included."""
        return {name: float(flat.norm()) for name, flat in self._by_layer(self.state).items()}

    def cosines(self, own: nn.Module, new_base: nn.Module) -> dict[str, float]:
        r"""Compare with the new base's own fine-tune, module by module.

        .. math:: \cos(s\,\Delta,\; \theta_{\mathrm{own}} - \theta_{\mathrm{new}})

        Args:
            own: the new base's own fine-tune.
            new_base: the network that the update is for.

        Raises:
            ArchitectureError: a network is of another architecture.
        """
        heads = differing_heads(tensors_of(own), tensors_of(new_base), "fine-tune", "new base")
        first, second = named_tensors(own), named_tensors(new_base)
        difference = {
            name: torch.zeros_like(wide(tensor)) if name in heads else wide(first[name]) - wide(second[name])
            for name, tensor in self.state.items()
        }
        ours, theirs = self._by_layer(self.state), self._by_layer(difference)
        return {
            name: float(torch.nn.functional.cosine_similarity(ours[name], theirs[name], dim=0))
            for name in ours
        }

    def table(self, own: nn.Module | None = None, new_base: nn.Module | None = None) -> str:
        """Write a line for each module: its norm, its scale, and its cosine with the new base's own fine-tune.

        Args:
            own, new_base: both, or neither, for the cosines.
        """
        cosines = {} if own is None or new_base is None else self.cosines(own, new_base)
        norms = self.norms()
        scales = {_module(name): self.scales[name] for name in self.state}
        width = max([len(name) for name in norms] + [5])
        lines = [f"{'layer':<{width}}  {'norm':>9}  {'scale':>6}" + ("  cosine" if cosines else "")]
        for name, norm in norms.items():
            cosine = f"  {cosines[name]:6.3f}" if cosines else ""
            lines.append(f"{name:<{width}}  {norm:9.4g}  {scales[name]:6.3g}{cosine}")
        return "\n".join(lines)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a file of safetensors, without code.

        Raises:
            CheckpointError: the file cannot be written; what was there before stays.
        """
        groups = {"state": self.state, "frame": self.frame, "buffers": self.buffers}
        facts = {
            "scales": dict(self.scales),
            "way": self.way,
            "new_base": self.new_base.to_json(),
            "judged": [[scale, loss] for scale, loss in self.judged.items()],
            "notes": list(self.notes),
            "names": list(self.state),
        }
        write_update(path, groups, facts)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> CarriedUpdate:
        """Read what :meth:`save` wrote, bit for bit; nothing in the file is run.

        Raises:
            CheckpointError: the file is missing, cut short, edited, or something else.
        """
        groups, facts = read_update(path)
        try:
            state = groups.get("state", {})
            return cls(
                {name: state[name] for name in facts["names"]},
                dict(facts["scales"]),
                facts["way"],
                Fingerprint.from_json(facts["new_base"]),
                groups.get("frame", {}),
                groups.get("buffers", {}),
                {float(scale): float(loss) for scale, loss in facts["judged"]},
                tuple(facts["notes"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"Expected a carried update in {path} but its header is not understood."
            ) from error

    def _by_layer(self, state: StateLike) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {}
        for name in self.state:
            scaled = self.scales[name] * wide(self.state[name]) if state is self.state else state[name]
            flat = torch.view_as_real(scaled) if scaled.is_complex() else scaled
            parts.setdefault(_module(name), []).append(flat.flatten().cpu())
        return {name: torch.cat(tensors) for name, tensors in parts.items()}

    def __repr__(self) -> str:
        values = sorted(set(self.scales.values()))
        scale = f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"
        return f"CarriedUpdate({self.way}; {len(self.state)} tensors; scale {scale})"

    def __str__(self) -> str:
        losses = [f"scale {scale:g}: loss {loss:.4g} on held-out data" for scale, loss in self.judged.items()]
        return "\n".join([repr(self), self.table(), *losses, *(f"note: {note}" for note in self.notes)])


def _module(name: str) -> str:
    return name.rpartition(".")[0] or "(network)"
