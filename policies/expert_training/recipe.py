"""What a recipe says.

* :class:`Recipe` -- the hyperparameters of one training.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

OWN = "own choice"
"""Source of values that are neither published nor another project's."""


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of one training.

    Attributes:
        algorithm: "ppo", of Stable-Baselines3, or "sac", of SBX.
        steps: Actions at most; each is ``action_repeat`` environment steps.
        bar: Mean return that the expert is meant to reach.
        enough: Mean return beyond which a training whose curve is flat stops early.
        source: Where the values come from.
        start: Task of the same domain whose training beside this one, or else (for SAC) whose
            expert of the package, gives the first weights; the task itself: its expert alone;
            None: none does.
        num_envs: Environments, all in this process.
        action_repeat: Environment steps that an action lasts while learning; the expert that comes
            out chooses one for every step, and is evaluated so.
        inputs: How many of an observation's numbers, from the first, the networks see; None: all.
        risen: Part of the training's episodes that begin between lying and standing, for
            mujoco-standup alone: see :mod:`policies.expert_training.sb3.initial_states`.
        gamma: Discount.
        learning_rate: At the start; PPO's falls linearly to zero.
        batch_size: Transitions of a gradient step.
        width: Units of each of the two hidden layers.
        activation: "tanh" or "relu".
        n_steps: PPO: steps of each environment between updates.
        n_epochs: PPO: passes over each rollout.
        gae_lambda: PPO: of the advantage estimate.
        ent_coef: PPO: weight of the entropy bonus. SAC: its first weight, which is then learned;
            0 is SAC's own, 1.
        clip_range: PPO: of the probability ratio.
        log_std_init: PPO: logarithm of the first standard deviation of actions.
        normalize_reward: Divide rewards by the running deviation of the return.
        gradient_steps: SAC: after each step of all environments.
        buffer_size: SAC: transitions remembered.
        learning_starts: SAC: steps of random actions before learning.
        policy_delay: SAC: updates of the critic for each of the actor.
        return_steps: SAC: rewards that are summed before the critic's own estimate.
        critic_norm: SAC: normalise what each of the critic's layers gives.
        evaluations: Times the policy is evaluated over the whole training, at most.
        evaluation_episodes: Episodes of each evaluation.
    """

    algorithm: str
    steps: int
    bar: float
    enough: float
    source: str = OWN
    start: str | None = None
    num_envs: int = 32
    action_repeat: int = 1
    inputs: int | None = None
    risen: float = 0.0
    gamma: float = 0.99
    learning_rate: float = 3e-4
    batch_size: int = 512
    width: int = 128
    activation: str = "tanh"
    n_steps: int = 128
    n_epochs: int = 8
    gae_lambda: float = 0.95
    ent_coef: float = 0.0
    clip_range: float = 0.2
    log_std_init: float = 0.0
    normalize_reward: bool = True
    gradient_steps: int = 4
    buffer_size: int = 500_000
    learning_starts: int = 5_000
    policy_delay: int = 1
    return_steps: int = 1
    critic_norm: bool = False
    evaluations: int = 24
    evaluation_episodes: int = 10

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return dataclasses.asdict(self)
