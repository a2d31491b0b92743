"""The policies and tasks that the contract is tested with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from policies import GatoPolicy, Policy, make_policy
from policies.model.config import NetworkConfig

TASKS = ("babyai-unlock-pickup", "metaworld-drawer-close", "mujoco-reacher")

SMALL = NetworkConfig(
    width=32, layers=1, heads=2, head_size=16, feed_forward=32, window=32, prompt_tokens=8,
    text_rank=8, vector_hidden=16, grid_channels=8, grid_groups=2,
)  # fmt: skip


def gato(env: Any) -> Policy:
    torch.set_num_threads(1)
    return GatoPolicy.create(env, config=SMALL)


MAKERS: dict[str, Callable[[Any], Policy]] = {
    "random": lambda env: make_policy("random", env=env),
    "expert": lambda env: make_policy("expert", env=env),
    "gato": gato,
}
