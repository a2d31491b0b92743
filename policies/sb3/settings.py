"""What reinforcing a checkpoint is asked for; nothing here imports torch.

* :class:`ReinforceSettings` -- one task of one checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from gato_gym.commands.flags import Names, flag
from gato_gym.ranges import check_range

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class ReinforceSettings:
    """What reinforcing a checkpoint is asked for.

    Attributes:
        source: The checkpoint: a folder, a shipped name, or a hub id.
        task: Id of the task, which the checkpoint knows.
        output: The run's folder; a run that is there is resumed.
        steps: Timesteps of the task's environments, all together.
        datasets: Ids or paths of Minari datasets, of any of its tasks, to imitate beside.
        imitation: Weight of the imitation loss beside PPO's.
        imitation_rows: Packed sequences, of 128 tokens, of an imitation batch.
        check_tasks: Ids of other tasks of the checkpoint, which are played before and after.
        episodes: Episodes of each task that are played before and after.
        num_envs: Environments that are played at a time.
        rollout: Timesteps of each between two updates.
        batch_size: Timesteps of a minibatch.
        epochs: Passes over a rollout.
        rate: Learning rate of Adam, for the network.
        value_rate: The same for the value head and the deviation around regressed actions.
        gamma: Discount.
        clip: PPO's clipping of probability ratios.
        entropy: Weight of the entropy over legal actions.
        target_kl: Divergence at which the passes over a rollout end early.
        critic_steps: Timesteps in which the value head learns alone; None is a tenth of all.
        deviation: First standard deviation around regressed actions, in units of [-1, 1].
        timesteps: Timesteps that an action is chosen from, where the task remembers; None is as
            many as the network's window.
        precision: Of the products in updates, "float32" or "bfloat16", the faster one on GPUs
            and on CPUs that multiply it. Episodes are played in float32. Probabilities of choices
            differ little between the two; those of numbers do once their deviation is small.
        seed: Seed of episodes and of sampled actions.
        save_every: Rollouts between two checkpoints.
        tensorboard: Whether to write TensorBoard's events as well.
        device: "auto", "cpu" or "cuda".

    Raises:
        ValueError: A setting is outside its range.
    """

    source: Annotated[str, flag(name="from")]
    task: str
    output: Path
    steps: int
    datasets: Annotated[tuple[str, ...], flag(name="dataset")] = ()
    imitation: float = 0.1
    imitation_rows: int = 4
    check_tasks: Annotated[tuple[str, ...], Names] = ()
    episodes: int = 50
    num_envs: int = 8
    rollout: int = 128
    batch_size: int = 256
    epochs: int = 4
    rate: float = 3e-5
    value_rate: float = 1e-3
    gamma: float = 0.99
    clip: float = 0.2
    entropy: float = 0.0
    target_kl: float = 0.03
    critic_steps: int | None = None
    deviation: float = 0.1
    timesteps: int | None = None
    precision: str = "float32"
    seed: int = 0
    save_every: int = 10
    tensorboard: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        check_range(
            self, "steps", "imitation_rows", "episodes", "num_envs", "rollout", "epochs",
            "timesteps", "save_every", low=1,
        )  # fmt: skip
        check_range(self, "batch_size", low=2)
        check_range(self, "imitation", "entropy", "critic_steps", "seed")
        check_range(self, "rate", "value_rate", "clip", "target_kl", "deviation", above=True)
        check_range(self, "gamma", high=1, above=True)
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}: expected {' or '.join(PRECISIONS)}")
        if self.num_envs * self.rollout < self.batch_size:
            raise ValueError(
                f"batch_size is {self.batch_size}: expected at most num_envs x rollout, "
                f"{self.num_envs} x {self.rollout}"
            )
