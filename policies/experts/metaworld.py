"""Meta-World's scripted policies behind ``predict``.

* :class:`MetaWorldExpert` -- the script of one task; :func:`make_script` makes it.
"""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gato_gym.tasks import Task
from policies.base import DistributionPolicy, spaces_of
from policies.distributions import Decision, Gaussian


class MetaWorldExpert(DistributionPolicy):
    """The script of one task, its actions clipped to the Box.

    It looks at the observation alone, so its state is always None.

    Args:
        env_id: Meta-World's own id, such as ``reach-v3``.
        observation_space: Box ``(39,)``.
        action_space: Box ``(4,)``.

    Raises:
        MissingPackageError: Meta-World is not installed.
        ValueError: The action space is not the one the scripts act in.
    """

    def __init__(
        self, env_id: str, observation_space: gym.Space[Any], action_space: gym.Space[Any]
    ) -> None:
        from gato_gym.tasks.task import need

        super().__init__(observation_space, action_space)
        if not isinstance(action_space, spaces.Box) or action_space.shape != (4,):
            raise ValueError(
                f"action space is {action_space}, expected a Box of shape (4,): make the expert "
                "for the environment of the task itself, without GatoTokenize"
            )
        self._box = action_space
        self._script = need("metaworld.policies", "metaworld").ENV_POLICY_MAP[env_id]()

    def act(self, observation: NDArray[np.float64]) -> NDArray[np.floating[Any]]:
        """The script's action, clipped: ``[4]`` from one observation ``[39]``."""
        with warnings.catch_warnings():  # "constants may be too high": clipped here
            warnings.simplefilter("ignore")
            action = self._script.get_action(np.asarray(observation, np.float64))
        return np.clip(action, self._box.low, self._box.high).astype(self._box.dtype)

    def _decide_batch(
        self, observation: Any, state: Any, starts: NDArray[np.bool_], deterministic: bool
    ) -> Decision:
        actions = np.stack([self.act(row) for row in observation])
        means = actions.astype(np.float32)
        return Decision(actions, None, Gaussian(means, np.zeros_like(means)))


def make_script(task: Task, env: Any) -> MetaWorldExpert:
    """The expert of suite ``metaworld``."""
    return MetaWorldExpert(task.env_id, *spaces_of(env))
