"""The policies and tasks that the contract is tested with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from gato_gym import Episode
from gato_gym.tasks import get_task, task_id_of
from policies import GatoPolicy, Policy, make_policy
from policies.collection.noise import SampledNoise
from policies.collection.recording import Recording
from policies.dt.policy import DtPolicy
from policies.jat.config import JatConfig
from policies.jat.policy import JatPolicy
from policies.model.config import NetworkConfig
from policies.rollout.vector_rollout import play_one
from policies.tt.policy import TtPolicy
from policies.tt.search import Search

TASKS = ("babyai-unlock-pickup", "metaworld-drawer-close", "mujoco-reacher")

SMALL = NetworkConfig(
    width=32, layers=1, heads=2, head_size=16, feed_forward=32, window=32, prompt_tokens=8,
    text_rank=8, vector_hidden=16, grid_channels=8, grid_groups=2,
)  # fmt: skip

SMALL_JAT = JatConfig(
    hidden_size=60, num_layers=2, num_heads=2, window_size=4, max_position_embeddings=16,
    vocab_size=256, eos_token_id=255, image_size=16,
)  # fmt: skip
"""Its window holds four timesteps of five, so that the tests slide it."""


def gato(env: Any) -> Policy:
    torch.set_num_threads(1)
    return GatoPolicy.create(env, config=SMALL)


def jat(env: Any) -> Policy:
    torch.set_num_threads(1)
    return JatPolicy.create(env, config=SMALL_JAT, window=8)


def dt(env: Any) -> Policy:
    """Its context is shorter than the episodes, so that the tests slide it."""
    torch.set_num_threads(1)
    return DtPolicy.create(env, config=SMALL, context=3)


def tt(env: Any) -> Policy:
    torch.set_num_threads(1)
    search = Search(horizon=2, beams=2, history=1)
    return TtPolicy.create(env, config=SMALL, context=3, bins=8, search=search)


def _only(recording: Recording, key: Any) -> Recording:
    return recording


def retrieve(env: Any) -> Policy:
    """From ten steps of two episodes of an expert."""
    return make_policy("retrieve", env=env, demonstrations=_demonstrations(env))


def gato_retrieving(env: Any) -> Policy:
    """The same steps share the say and are shown."""
    policy = gato(env)
    assert isinstance(policy, GatoPolicy)
    return policy.with_demonstrations(_demonstrations(env), show=True)


def _demonstrations(env: Any) -> list[Episode]:
    inner = get_task(task_id_of(env) or "").make()
    expert = make_policy("expert", env=inner)
    shown = []
    for seed in (1, 2):
        noise = SampledNoise(0.0, inner.action_space, np.random.default_rng(0))
        recording = Recording(inner, noise, most_steps=10)
        play_one(inner, expert, seed, deterministic=None, record=partial(_only, recording))
        shown.append(recording.episode("shown", seed, {}))
    inner.close()
    return shown


MAKERS: dict[str, Callable[[Any], Policy]] = {
    "random": lambda env: make_policy("random", env=env),
    "expert": lambda env: make_policy("expert", env=env),
    "gato": gato,
    "jat": jat,
    "dt": dt,
    "tt": tt,
    "retrieve": retrieve,
    "gato-retrieving": gato_retrieving,
}

CASES = [
    (name, task)
    for name in MAKERS
    for task in TASKS
    if (name, task) != ("tt", TASKS[0])  # texts and symbols are not numbers
]
"""Policies with the tasks that they play."""
