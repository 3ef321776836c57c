"""What every mode that watches or changes dispatched operations has in common."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class LightDispatchMode(TorchDispatchMode):
    """A dispatch mode that leaves the compiler out.

    Nothing is compiled in here, and telling the compiler so would import it: 800 modules, 100 MB.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
