"""Keys and values of the tokens that a row may still see, in a fixed amount of memory.

* :class:`TokenCache` -- a ring of slots for each row.

Shapes: B rows, T tokens, S slots of the ring, A slots in all, H heads, K head size, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from policies.jat.config import JatConfig
from policies.model.quantized_linear import has_kernels

SLOTS_TOGETHER = 8
"""All slots are a multiple of it, so that a row's memory begins at a multiple of 32 bytes: else a
matrix library may sum it in another order, and a row would depend on its batch."""


@dataclass
class TokenCache:
    """A ring of S slots for each row; the slot after it takes the tokens that a row does not have.

    Attributes:
        keys, values: float ``[L, B, H, A, K]`` for A slots in all.
        orders: int64 ``[B, A]``, number of the token in each slot, -1 where there is none.
        slots: S.
        compiled: Whether :mod:`policies.jat.cpu_kernels` computes with it. The keys' slots are then
            next to each other in memory, so that scores are computed of many slots at once.
    """

    keys: Tensor
    values: Tensor
    orders: Tensor
    slots: int
    compiled: bool

    @classmethod
    def empty(cls, config: JatConfig, *, rows: int, slots: int, like: Tensor) -> TokenCache:
        """A cache without tokens, of the device and the dtype of ``like``."""
        size = config.hidden_size // config.num_heads
        everything = slots + SLOTS_TOGETHER - slots % SLOTS_TOGETHER
        shape = (config.num_layers, rows, config.num_heads, everything, size)
        keys, values = (torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in range(2))
        narrow = like.device.type == "cpu" and like.dtype == torch.bfloat16
        compiled = narrow and size % 4 == 0 and has_kernels()
        if compiled:
            keys = keys.view(*shape[:3], size, everything).transpose(3, 4)
        orders = torch.full((rows, everything), -1, dtype=torch.long, device=like.device)
        return cls(keys, values, orders, slots, compiled)

    @property
    def nbytes(self) -> int:
        """Bytes held, fixed at construction."""
        return sum(t.nelement() * t.element_size() for t in (self.keys, self.values, self.orders))

    def row(self, row: int) -> TokenCache:
        """A view of one row: writing into it writes here."""
        part = slice(row, row + 1)
        keys, values, orders = self.keys[:, part], self.values[:, part], self.orders[part]
        return TokenCache(keys, values, orders, self.slots, self.compiled)

    def clear(self, rows: Tensor) -> None:
        """Forget the tokens of some rows: bool ``[B]``."""
        self.orders[rows] = -1

    def place(self, orders_BT: Tensor) -> Tensor:
        """Record new tokens; the slot of each: int64 ``[B, T]``."""
        slots_BT = torch.where(orders_BT < 0, self.slots, orders_BT % self.slots)
        rows = torch.arange(len(orders_BT), device=orders_BT.device)[:, None].expand_as(slots_BT)
        self.orders[rows, slots_BT] = orders_BT
        return slots_BT

    def visible(self, orders_BT: Tensor, first_B: Tensor, window: int) -> dict[str, Tensor]:
        """Which slots each token sees in global and in local blocks: bool ``[B, 1, T, A]``.

        A token that a row does not have sees the empty slots, so that it has numbers at all.
        """
        held, asking = self.orders[:, None, :], orders_BT[:, :, None]
        seen = (held >= first_B[:, None, None]) & (held >= 0) & (held <= asking)
        absent = (asking < 0) & (held < 0)
        near = seen & (held > asking - window)
        return {"global": (seen | absent)[:, None], "local": (near | absent)[:, None]}
