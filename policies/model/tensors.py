"""Dataclasses of tensors that move between devices as one.

* :class:`Tensors` -- the base class: ``to`` a device, and ``at`` an index.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Self

import torch
from torch import Tensor


class Tensors:
    """Base of dataclasses whose fields are tensors, other such dataclasses, dicts of them, or None.

    ``to`` leaves every other value as it is.
    """

    def to(self, device: torch.device) -> Self:
        """A copy on a device."""
        return type(self)(*(_moved(value, device) for value in self._values()))

    def at(self, index: Any) -> Self:
        """A copy with each tensor at ``index``."""
        return type(self)(*(value[index] for value in self._values()))

    def _values(self) -> list[Any]:
        return [getattr(self, f.name) for f in fields(self)]  # type: ignore[arg-type]


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, (Tensor, Tensors)):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _moved(part, device) for name, part in value.items()}
    return value
