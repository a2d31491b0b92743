"""The shipped network plays tasks of several suites, each scored by Stable-Baselines3.

python examples/play.py --episodes 5
"""

import gymnasium as gym
import tyro
from stable_baselines3.common.evaluation import evaluate_policy

from policies import GatoPolicy, make_policy

TASKS = ("mujoco-reacher", "babyai-go-to-local", "metaworld-reach")


def main(episodes: int = 5, tasks: tuple[str, ...] = TASKS) -> None:
    for task in tasks:
        env = gym.make(f"Gato/{task}")
        policies = {
            "gato-mini": GatoPolicy.load("gato-mini", env=env),
            "expert": make_policy("expert", env=env),
            "random": make_policy("random", env=env),
        }
        for name, policy in policies.items():
            mean, deviation = evaluate_policy(policy, env, n_eval_episodes=episodes, warn=False)
            print(f"{task:20} {name:10} {mean:8.2f} ± {deviation:.2f}")
        env.close()


if __name__ == "__main__":
    tyro.cli(main)
