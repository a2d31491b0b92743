"""Keys and values of the tokens that a row may still see, in a fixed amount of memory.

* :class:`TokenCache` -- a ring of slots for each row.

Shapes: B rows, T tokens, S slots, H heads, K head size, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from policies.jat.config import JatConfig


@dataclass
class TokenCache:
    """A ring of slots for each row; one more slot takes the tokens that a row does not have.

    Attributes:
        keys, values: float ``[L, B, H, S + 1, K]``.
        orders: int64 ``[B, S + 1]``, number of the token in each slot, -1 where there is none.
    """

    keys: Tensor
    values: Tensor
    orders: Tensor

    @classmethod
    def empty(cls, config: JatConfig, *, rows: int, slots: int, like: Tensor) -> TokenCache:
        """A cache without tokens, of the device and the dtype of ``like``."""
        size = config.hidden_size // config.num_heads
        shape = (config.num_layers, rows, config.num_heads, slots + 1, size)
        keys, values = (torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in range(2))
        orders = torch.full((rows, slots + 1), -1, dtype=torch.long, device=like.device)
        return cls(keys, values, orders)

    @property
    def slots(self) -> int:
        """S."""
        return self.orders.shape[1] - 1

    @property
    def nbytes(self) -> int:
        """Bytes held, fixed at construction."""
        return sum(t.nelement() * t.element_size() for t in (self.keys, self.values, self.orders))

    def row(self, row: int) -> TokenCache:
        """A view of one row: writing into it writes here."""
        part = slice(row, row + 1)
        return TokenCache(self.keys[:, part], self.values[:, part], self.orders[part])

    def clear(self, rows: Tensor) -> None:
        """Forget the tokens of some rows: bool ``[B]``."""
        self.orders[rows] = -1

    def place(self, orders_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Record new tokens; the row and the slot of each: int64 ``[B * T]`` twice."""
        slots_BT = torch.where(orders_BT < 0, self.slots, orders_BT % self.slots)
        rows = torch.arange(len(orders_BT), device=orders_BT.device)[:, None].expand_as(slots_BT)
        self.orders[rows, slots_BT] = orders_BT
        return rows.flatten(), slots_BT.flatten()

    def visible(self, orders_BT: Tensor, first_B: Tensor, window: int) -> dict[str, Tensor]:
        """Which slots each token sees in global and in local blocks: bool ``[B, 1, T, S + 1]``.

        A token that a row does not have sees the empty slots, so that it has numbers at all.
        """
        held, asking = self.orders[:, None, :], orders_BT[:, :, None]
        seen = (held >= first_B[:, None, None]) & (held >= 0) & (held <= asking)
        absent = (asking < 0) & (held < 0)
        near = seen & (held > asking - window)
        return {"global": (seen | absent)[:, None], "local": (near | absent)[:, None]}
