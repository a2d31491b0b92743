"""Caches that are joined: tokens stay where they were, and sizes that differ are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import SMALL

from policies.model.kv_cache import RingCache


def cache(rows: int, *, ring: int = 14, pinned: int = 2) -> RingCache:
    ring_cache = RingCache.empty(SMALL, rows=rows, ring=ring, pinned=pinned, like=torch.zeros(1))
    ring_cache.keys.normal_()
    ring_cache.values.normal_()
    return ring_cache


def test_a_joined_cache_goes_on_where_its_parts_were() -> None:
    parts = [cache(2), cache(1)]
    joined = RingCache.join(parts)
    # the prompt's two slots, then live positions from 16 on, 14 of them before they are reused
    live = [2 + at % 14 for at in range(24)]
    for each in (*parts, joined):
        assert each.slots(np.arange(40)).tolist() == [*range(16), *live]
    for name in ("keys", "values"):
        rows = torch.cat([getattr(part, name) for part in parts], dim=1)
        assert torch.equal(getattr(joined, name), rows)
    for other in (cache(1, ring=15), cache(1, ring=13, pinned=3)):
        with pytest.raises(ValueError, match="expected caches of one size"):
            RingCache.join([parts[0], other])
