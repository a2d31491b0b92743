"""A video of the shipped network, by Gymnasium's own RecordVideo.

pip install moviepy && python examples/record_video.py --task babyai-go-to-local
"""

from pathlib import Path

import gymnasium as gym
import tyro
from gymnasium.wrappers import RecordVideo

from policies import GatoPolicy


def main(
    task: str = "babyai-go-to-local", seed: int = 0, folder: Path = Path("videos"), fps: int = 10
) -> None:
    env = gym.make(f"Gato/{task}", render_mode="rgb_array")
    env = RecordVideo(env, str(folder), name_prefix=task, fps=fps, disable_logger=True)
    policy = GatoPolicy.load("gato-mini", env=env)
    observation, _ = env.reset(seed=seed)
    state, ended, total = None, False, 0.0
    while not ended:
        action, state = policy.predict(observation, state)
        observation, reward, terminated, truncated, _ = env.step(action)
        total, ended = total + float(reward), terminated or truncated
    env.close()
    print(f"return {total:.2f}:", *sorted(folder.glob(f"{task}*.mp4")))


if __name__ == "__main__":
    tyro.cli(main)
