"""Train a network on the episodes of your own Stable-Baselines3 agent, and compare the two.

python examples/train_on_your_agent.py
"""

from pathlib import Path

import gymnasium as gym
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

from gato_gym.commands.main import main as gato_gym
from policies import GatoPolicy, record_episodes


def main(
    env_id: str = "CartPole-v1", agent_steps: int = 60_000, episodes: int = 20, updates: int = 600,
    output: Path = Path("runs/example"),
) -> None:  # fmt: skip
    env = gym.make(env_id)
    agent = PPO("MlpPolicy", env, seed=0, device="cpu").learn(agent_steps)
    record_episodes(env, agent, episodes, "example/agent-v0", replace=True)
    train = ["train", "--dataset", "example/agent-v0", "--preset", "tiny", "--score-every", "0"]
    if status := gato_gym([*train, "--steps", str(updates), "--output", str(output)]):
        raise SystemExit(status)
    network = GatoPolicy.load(output, env=env)
    for name, policy in {"agent": agent, "network": network}.items():
        mean, deviation = evaluate_policy(policy, env, n_eval_episodes=10, warn=False)
        print(f"{name:8} {mean:8.2f} ± {deviation:.2f}")


if __name__ == "__main__":
    tyro.cli(main)
