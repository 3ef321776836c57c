"""What every mode that watches or changes dispatched operations has in common."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class DispatchMode(TorchDispatchMode):
    """Follow operations without compiling anything.

    It sees what tensors of other classes are made of. Nothing is compiled in here, and telling the compiler so would
    import it: 800 modules, 100 MB. Operations on tensors that wrap others, such as jagged nested ones, are left to
    their class: the mode is then shown what these do to the tensors inside.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        dispatch = cls.__dict__.get("__torch_dispatch__")
        if dispatch is not None:

            @functools.wraps(dispatch)
            def dispatch_plain(
                self: Any, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
            ) -> Any:
                """Handle an operation on plain tensors."""
                if any(kind.__torch_dispatch__ is not Tensor.__torch_dispatch__ for kind in types):
                    return NotImplemented
                return dispatch(self, func, types, args, kwargs)

            type.__setattr__(cls, "__torch_dispatch__", dispatch_plain)
        super().__init_subclass__(**kwargs)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
