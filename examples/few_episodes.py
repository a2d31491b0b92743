"""A policy from a few recorded episodes, without any training: the nearest recorded step's action.

python examples/few_episodes.py --demonstrations 1 5 25
"""

import gymnasium as gym
import tyro
from stable_baselines3.common.evaluation import evaluate_policy

from policies import RetrievalPolicy, make_policy, record_episodes

DATASET = "example/retrieval-v0"


def main(
    task: str = "mujoco-reacher", demonstrations: tuple[int, ...] = (1, 5, 25), episodes: int = 10
) -> None:
    env = gym.make(f"Gato/{task}")
    expert = make_policy("expert", env=env)
    record_episodes(env, expert, max(demonstrations), DATASET, replace=True)
    for count in demonstrations:
        policy = RetrievalPolicy.create(env, DATASET, episodes=count)
        mean, deviation = evaluate_policy(policy, env, n_eval_episodes=episodes, warn=False)
        print(f"{count:3} episodes: {mean:8.2f} ± {deviation:.2f}")
    env.close()


if __name__ == "__main__":
    tyro.cli(main)
