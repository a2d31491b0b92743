"""Observations that hold the timesteps before them, as tokens.

* :class:`TokenHistory` -- an environment whose observations do.
* :class:`HistorySpace` -- their space, which says how they became tokens.
* :func:`history_env` -- any environment, read as a task of a checkpoint is.

A rollout buffer keeps single observations, and a policy that remembers acts on more: with the
history inside each observation, the buffer holds all that an action was chosen from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from gato_gym.spaces import Plan
from gato_gym.wrappers import GatoTokenize
from policies.gato.checkpoint import read_sizes, read_tasks
from policies.gato.checkpoint_folder import locate_checkpoint
from policies.gato.task_specs import check_sizes, find_task
from policies.model.inputs.sequence import fed_actions

History = dict[str, Any]
"""An observation: see :class:`HistorySpace`."""


class HistorySpace(spaces.Dict):
    """The last K timesteps as tokens.

    A Dict of the parts of :func:`gato_gym.wrappers.token_space`, each with a first axis of K
    timesteps, the newest last; ``length`` int32 ``[1]``, the number of timesteps that are there, in
    [1, K], the others being zeros; and, where past actions are remembered, ``actions`` int32
    ``[K, A]``, offsets from the first legal id, of which the newest row is zeros.

    Args:
        tokens: The space of one timestep's tokens.
        plan: How observations and actions become tokens.
        timesteps: K.
        task: Id of the task of a checkpoint that is played; None for none.
    """

    def __init__(
        self, tokens: spaces.Dict, plan: Plan, timesteps: int, task: str | None = None
    ) -> None:
        parts: dict[str, spaces.Space[Any]] = {}
        for name, box in tokens.spaces.items():
            assert isinstance(box, spaces.Box)
            low, high = (np.stack([bound] * timesteps) for bound in (box.low, box.high))
            parts[name] = spaces.Box(np.minimum(low, 0), high, dtype=box.dtype.type)
        if plan.options.memory == "all":
            most = int(np.diff(plan.action_ranges).max()) - 1
            parts["actions"] = spaces.Box(0, most, (timesteps, plan.num_actions), np.int32)
        parts["length"] = spaces.Box(1, timesteps, (1,), np.int32)
        super().__init__(parts)
        self.plan, self.timesteps, self.task = plan, timesteps, task


class TokenHistory(gym.Wrapper[History, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Shows the last timesteps of an episode in each observation.

    Args:
        env: An environment of tokens, with offsets as actions.
        timesteps: K, how many an observation holds.
        task: Id of the task of a checkpoint that is played; None for none.

    Raises:
        ValueError: ``timesteps`` is below 1.

    Example:
        >>> from gato_gym.wrappers import make
        >>> tokens = GatoTokenize(make("CartPole-v1"), action_offsets=True)
        >>> env = TokenHistory(tokens, timesteps=3)
        >>> observation, _ = env.reset(seed=0)
        >>> observation["vectors"].shape, observation["length"].tolist()
        ((3, 1, 64), [1])
    """

    def __init__(self, env: GatoTokenize, timesteps: int, *, task: str | None = None) -> None:
        if timesteps < 1:
            raise ValueError(f"timesteps is {timesteps}: expected 1 or more")
        gym.utils.RecordConstructorArgs.__init__(self, timesteps=timesteps, task=task)
        gym.Wrapper.__init__(self, env)
        assert isinstance(env.observation_space, spaces.Dict)
        self.space = HistorySpace(env.observation_space, env.plan, timesteps, task)
        self.observation_space = self.space
        self._history = self._blank()

    def _blank(self) -> History:
        boxes = self.space.spaces.items()
        return {name: np.zeros(box.shape or (), box.dtype) for name, box in boxes}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[History, dict[str, Any]]:
        """Reset the environment; its first observation has no history."""
        tokens, info = self.env.reset(seed=seed, options=options)
        self._history = self._blank()
        return self._with(tokens), info

    def step(self, action: Any) -> tuple[History, Any, bool, bool, dict[str, Any]]:
        """Step the environment with the offsets ``[A]`` of an action's tokens."""
        tokens, reward, terminated, truncated, info = self.env.step(action)
        if "actions" in self._history:
            self._history["actions"][-1] = action
        return self._with(tokens), reward, terminated, truncated, info

    def _with(self, tokens: History) -> History:
        length = self._history["length"] + 1
        for name, part in self._history.items():
            if name != "length":
                part[:-1] = part[1:]
                part[-1] = tokens.get(name, 0)
        self._history["length"] = np.minimum(length, self.space.timesteps)
        return {name: part.copy() for name, part in self._history.items()}


def history_env(
    env: gym.Env[Any, Any],
    checkpoint: str | Path,
    *,
    task: str | None = None,
    timesteps: int | None = None,
    text_length: int = 128,
) -> TokenHistory:
    """An environment as :class:`policies.sb3.policy.GatoActorCriticPolicy` plays it.

    Args:
        env: An environment with the spaces of one of the checkpoint's tasks.
        checkpoint: As :meth:`policies.gato.policy.GatoPolicy.load` takes it.
        task: Id of the task, where the environment does not provide it.
        timesteps: How many an observation holds; None is as many as the network's window, 1 for a
            task that remembers nothing. Up to then, what is seen in an episode is what
            ``GatoPolicy`` sees; later a history reads as an episode that begins with it.
        text_length: Largest number of text tokens in an observation.

    Raises:
        policies.gato.task_specs.SpaceMismatchError: No task, or several, have these spaces.
        policies.gato.checkpoint.CheckpointError: The checkpoint cannot be read.
    """
    folder = locate_checkpoint(checkpoint)
    name, record = find_task(read_tasks(folder), env, task)
    tokens = GatoTokenize(env, record.options, text_length=text_length, action_offsets=True)
    plan, sizes = tokens.plan, read_sizes(folder)
    check_sizes(sizes, plan)
    if plan.options.memory == "none":
        timesteps = 1
    elif timesteps is None:
        actions = fed_actions(plan) if plan.options.memory == "all" else 0
        timesteps = max(1, sizes.window // (plan.num_tokens + actions))
    return TokenHistory(tokens, timesteps, task=name)
