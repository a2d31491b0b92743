"""``gato-gym record`` and ``gato-gym score``: a policy in any environment.

* :class:`Record` -- its episodes as a Minari dataset.
* :class:`Score` -- its return beside chance's and the expert's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import Positional

from gato_gym.commands.common import Command, Invocation
from gato_gym.commands.flags import Numbers, flag
from gato_gym.ranges import check_range


@dataclass(frozen=True)
class _Player(Command):
    """A policy and its environment.

    Attributes:
        environment: Such as CartPole-v1, or module:ENV_ID.
        policy: A .zip of Stable-Baselines3, expert, random, retrieve, the folder of a run or
            checkpoint, or module:factory.
        algorithm: Algorithm of a .zip: ppo, a2c, dqn, sac, td3, ddpg.
        trust_zip: I trust the author of the .zip, whose pickles run whatever code is in them.
        stochastic: Sample the policy's actions.
        demonstrations: The Minari dataset that retrieve plays from, its id or path.
        demonstration_episodes: How many of its episodes, the first ones; by default all. Score
            takes several numbers, such as 1,5,25.
    """

    environment: Annotated[Positional[str], flag(metavar="ENV_ID")]
    policy: str
    algorithm: str | None = None
    trust_zip: bool = False
    stochastic: bool = False
    demonstrations: Annotated[str | None, flag(metavar="ID")] = None
    demonstration_episodes: Annotated[tuple[int, ...], Numbers] = ()

    def _make_policies(self, env: Any) -> list[Any]:
        """The policy, one for each number of demonstrations.

        Raises:
            ValueError: Demonstrations are of no use to this policy.
        """
        from policies.registry import make_policy

        if self.policy != "retrieve" and self.demonstrations is not None:
            raise ValueError(
                f"--policy {self.policy} plays without --demonstrations: expected --policy "
                "retrieve, or none of them"
            )
        return [
            make_policy(
                self.policy,
                env=env,
                algorithm=self.algorithm,
                trust_zip=self.trust_zip,
                demonstrations=self.demonstrations,
                demonstration_episodes=number,
            )
            for number in self.demonstration_episodes or (None,)
        ]


@dataclass(frozen=True, kw_only=True)
class Record(_Player):
    """Record a policy's episodes as a Minari dataset.

    Attributes:
        dataset: Id of the new dataset, such as my/cartpole-v0.
        episodes: Number of episodes.
        noise: Noise that is executed and not recorded, 0 to 1.
        overwrite: Replace a dataset of this id.
        seed: Seed of the first episode.
    """

    dataset: Annotated[str, flag(metavar="ID")]
    episodes: int = 100
    noise: float = 0.0
    overwrite: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, "episodes", low=1)
        check_range(self, "noise", high=1)
        check_range(self, "seed")
        if len(self.demonstration_episodes) > 1:
            raise ValueError(
                f"demonstration_episodes is {self.demonstration_episodes}: expected one number, "
                "as one dataset is recorded"
            )

    def run(self, call: Invocation) -> None:
        import numpy as np
        from rich.progress import Progress

        import gato_gym
        from gato_gym.episodes.metadata import check_dataset_id
        from policies.collection.record import likeliest, record_episodes
        from policies.rollout.faults import close_env

        check_dataset_id(self.dataset)
        env = gato_gym.make(self.environment)
        (policy,) = self._make_policies(env)
        with Progress(console=call.console, transient=True) as progress:
            bar = progress.add_task("episodes", total=self.episodes)
            returns = record_episodes(
                env,
                policy,
                self.episodes,
                self.dataset,
                seed=self.seed,
                deterministic=likeliest(policy, stochastic=self.stochastic),
                noise=self.noise,
                replace=self.overwrite,
                environment=self.environment,
                on_episode=lambda _: progress.advance(bar),
            )
        close_env(env)
        call.console.print(
            f"{self.dataset}: {len(returns)} episodes, return {np.mean(returns):.2f} ± "
            f"{np.std(returns):.2f}. Next:\n"
            f"  gato-gym train --dataset {self.dataset} --output runs/mine",
            highlight=False,
            markup=False,
        )


@dataclass(frozen=True, kw_only=True)
class Score(_Player):
    """Score a policy's return beside chance's and the expert's.

    It plays in any environment; the tasks of this package have a benchmark, gato-gym bench.

    Attributes:
        dataset: Dataset whose expert it is compared with.
        episodes: Number of episodes.
    """

    dataset: Annotated[str | None, flag(metavar="ID")] = None
    episodes: int = 20

    def __post_init__(self) -> None:
        check_range(self, "episodes", low=1)

    def run(self, call: Invocation) -> None:
        import numpy as np
        import torch

        import gato_gym
        from policies.collection.record import likeliest, play_returns
        from policies.registry import make_policy
        from policies.rollout.faults import close_env

        expert = None if self.dataset is None else self._expert_return(self.dataset)
        torch.set_num_threads(1)  # one environment at a time: more threads wait for each other
        print_line = call.console.print
        env = gato_gym.make(self.environment)
        policies = self._make_policies(env)
        least = play_returns(env, make_policy("random", env=env), self.episodes)
        low = float(np.mean(least))
        print_line(f"random  {low:10.2f} ± {np.std(least):.2f}", highlight=False)
        means = []
        for policy, number in zip(policies, self.demonstration_episodes or (None,), strict=True):
            choice = likeliest(policy, stochastic=self.stochastic)
            returns = play_returns(env, policy, self.episodes, deterministic=choice)
            means.append(float(np.mean(returns)))
            from_ = "" if number is None else f", from {number} demonstrations"
            print_line(f"policy  {means[-1]:10.2f} ± {np.std(returns):.2f}{from_}", highlight=False)
        close_env(env)
        if expert is not None:
            print_line(f"expert  {expert:10.2f}", highlight=False)
            for mean in means:
                score = (mean - low) / (expert - low) if expert > low else float("nan")
                print_line(f"score   {score:10.3f}  (policy - random) / (expert - random)")
        print_line(
            f"{self.episodes} episodes each, seeds 0 to {self.episodes - 1}", highlight=False
        )

    @staticmethod
    def _expert_return(dataset: str) -> float:
        """The expert's mean return, which the dataset's metadata holds."""
        from gato_gym.episodes.minari_datasets import find_minari

        expert = find_minari(dataset).storage.metadata.get("expert_return")
        if expert is None:
            raise ValueError(
                f"dataset {dataset!r} holds no expert_return: record it with gato-gym record, or "
                "leave --dataset out"
            )
        return float(expert)
