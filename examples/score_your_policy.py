"""The benchmark scores a policy of your own beside random actions and the expert.

python examples/score_your_policy.py --episodes 20
"""

from pathlib import Path

import numpy as np
import tyro
from gymnasium.vector import VectorEnv

from benchmarks.run import main as bench


class Still:
    """Anything with Stable-Baselines3's predict; observations are batches."""

    def __init__(self, env: VectorEnv) -> None:
        self.size = env.single_action_space.shape

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.zeros((len(observation), *self.size), np.float32), state


def still(env: VectorEnv) -> Still:
    return Still(env)


def main(episodes: int = 20, output: Path = Path("results/still"), workers: int = 2) -> None:
    run = ["--suite", "mujoco", "--tasks", "reacher,pusher", "--policy", "score_your_policy:still"]
    run += ["--episodes", str(episodes), "--workers", str(workers), "--output", str(output)]
    raise SystemExit(bench(run))


if __name__ == "__main__":
    tyro.cli(main)
