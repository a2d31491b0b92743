"""Atari: the 57 games of the usual benchmark, four grey frames of 84 x 84 (arXiv 1207.4708).

* :data:`SUITE` -- the 57 games.
* :class:`AtariEnv` -- one game as an environment.
* :class:`AtariVectorEnv` -- many environments of a game, in ALE's own threads.
* :func:`make_ale` -- what both use.

Both use the preprocessing of ALE's vector environment: an action lasts four frames, the last two
are pooled by their maximum, resized and made grey, and four of these are stacked, the newest last.
A game begins after up to 30 idle frames. It ends when it is over, not when a life is lost, or is
truncated after 108,000 frames. Rewards are the game's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from gato_gym.options import PlanOptions
from gato_gym.tasks.suite import MEASURED, Suite
from gato_gym.tasks.task import Task, need

GAMES = {
    "Alien": 18, "Amidar": 10, "Assault": 7, "Asterix": 9, "Asteroids": 14, "Atlantis": 4,
    "BankHeist": 18, "BattleZone": 18, "BeamRider": 9, "Berzerk": 18, "Bowling": 6, "Boxing": 18,
    "Breakout": 4, "Centipede": 18, "ChopperCommand": 18, "CrazyClimber": 9, "Defender": 18,
    "DemonAttack": 6, "DoubleDunk": 18, "Enduro": 9, "FishingDerby": 18, "Freeway": 3,
    "Frostbite": 18, "Gopher": 8, "Gravitar": 18, "Hero": 18, "IceHockey": 18, "Jamesbond": 18,
    "Kangaroo": 18, "Krull": 18, "KungFuMaster": 14, "MontezumaRevenge": 18, "MsPacman": 9,
    "NameThisGame": 6, "Phoenix": 8, "Pitfall": 18, "Pong": 6, "PrivateEye": 18, "Qbert": 6,
    "Riverraid": 18, "RoadRunner": 18, "Robotank": 18, "Seaquest": 18, "Skiing": 3, "Solaris": 18,
    "SpaceInvaders": 6, "StarGunner": 18, "Surround": 5, "Tennis": 18, "TimePilot": 10,
    "Tutankham": 8, "UpNDown": 6, "Venture": 18, "VideoPinball": 9, "WizardOfWor": 10,
    "YarsRevenge": 18, "Zaxxon": 18,
}  # fmt: skip
"""ALE's names of the games, and how many actions each has."""

FRAMES = 108_000
"""Frames after which a game is truncated: half an hour."""

IDLE_FRAMES = 30
OPTIONS = PlanOptions(stacks=("",), image_size=42, memory="none")
"""A stack of frames is one token, of frames halved as the experts see them; it shows what moves."""


def make_ale(
    game: str,
    num_envs: int,
    *,
    threads: int,
    sticky: float = 0.0,
    reward_clipping: bool = False,
    life_loss_info: bool = False,
    autoreset_mode: gym.vector.AutoresetMode = gym.vector.AutoresetMode.NEXT_STEP,
) -> Any:
    """ALE's own vector environment of a game, with the preprocessing of this package.

    Args:
        game: ALE's name, such as ``BankHeist``.
        num_envs: Number of environments.
        threads: Number of ALE's threads; 0 takes one for each core.
        sticky: Probability that a frame repeats the previous action.
        reward_clipping: Whether rewards are reduced to their sign (training only).
        life_loss_info: Whether a lost life terminates although the game continues (training only).
        autoreset_mode: When a finished game restarts.

    Raises:
        MissingPackageError: ale-py is not installed.
    """
    vector = need("ale_py.vector_env", "atari").AtariVectorEnv
    return vector(
        re.sub(r"(?<!^)(?=[A-Z])", "_", game).lower(),
        num_envs,
        num_threads=threads,
        max_num_frames_per_episode=FRAMES,
        repeat_action_probability=sticky,
        noop_max=IDLE_FRAMES,
        use_fire_reset=False,
        reward_clipping=reward_clipping,
        episodic_life=False,
        life_loss_info=life_loss_info,
        autoreset_mode=autoreset_mode,
    )


def _ale_seed(seed: int) -> int:
    """ALE takes seeds below 2**31 alone."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0]) >> 1


class AtariEnv(gym.Env[NDArray[np.uint8], np.int64]):
    """A game as an environment: uint8 ``(4, 84, 84)``, the newest frame last.

    Args:
        game: ALE's name, such as ``BankHeist``.
        render_mode: None, or "rgb_array": the newest frame, grey as it is.
        sticky: Probability that a frame repeats the previous action.

    Raises:
        MissingPackageError: ale-py is not installed.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(self, game: str, *, render_mode: str | None = None, sticky: float = 0.0) -> None:
        self.game = game
        self._games = AtariVectorEnv(game, 1, threads=1, sticky=sticky)
        self.observation_space = self._games.single_observation_space
        self.action_space = self._games.single_action_space
        self.render_mode = render_mode
        self._newest: NDArray[np.uint8] = np.zeros((84, 84), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start a game; without a seed, the last seed's sequence continues."""
        super().reset(seed=seed)
        observations, info = self._games.reset(seed=None if seed is None else [seed])
        self._newest = observations[0, -1]
        return observations[0], {"lives": int(info["lives"][0])}

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Four frames of a game."""
        observations, rewards, terminated, truncated, info = self._games.step([action])
        self._newest = observations[0, -1]
        lives = {"lives": int(info["lives"][0])}
        ends = bool(terminated[0]), bool(truncated[0])
        return observations[0], float(rewards[0]), *ends, lives

    def render(self) -> NDArray[np.uint8] | None:
        """The newest frame, uint8 ``(84, 84, 3)``."""
        return None if self.render_mode is None else np.repeat(self._newest[..., None], 3, axis=2)


class AtariVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """Many environments of a game, each like :class:`AtariEnv`, in ALE's own threads.

    After the end of a game, the next step starts another one and ignores its action (Gymnasium's
    ``AutoresetMode.NEXT_STEP``).

    Args:
        game: ALE's name, such as ``BankHeist``.
        num_envs: Number of environments.
        threads: Number of ALE's threads; 0 takes one for each core.
        sticky: As for :class:`AtariEnv`.

    Raises:
        MissingPackageError: ale-py is not installed.
    """

    metadata: dict[str, Any] = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, game: str, num_envs: int, *, threads: int = 0, sticky: float = 0.0) -> None:
        self._ale = make_ale(game, num_envs, threads=threads, sticky=sticky)
        self.num_envs = num_envs
        self.single_observation_space = self._ale.single_observation_space
        self.single_action_space = self._ale.single_action_space
        self.observation_space = self._ale.observation_space
        self.action_space = self._ale.action_space

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start every game; an int seeds them by it and the numbers after it.

        Raises:
            ValueError: Seeds are not one for each environment.
        """
        if isinstance(seed, int):
            seed = [seed + row for row in range(self.num_envs)]
        if seed is not None and (len(seed) != self.num_envs or None in seed):
            raise ValueError(f"got seeds {seed}: expected {self.num_envs} numbers, or None")
        seeds = None if seed is None else np.array([_ale_seed(int(one or 0)) for one in seed])
        observations, info = self._ale.reset(seed=seeds)
        return observations.copy(), {"lives": info["lives"].copy()}

    def step(
        self, actions: Any
    ) -> tuple[
        NDArray[np.uint8], NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        """Four frames of every game."""
        transition = self._ale.step(np.asarray(actions, np.int32))
        observations, rewards, terminated, truncated, info = transition
        return (
            observations.copy(),
            rewards.astype(np.float64),
            terminated.copy(),
            truncated.copy(),
            {"lives": info["lives"].copy()},
        )


def _tasks() -> list[Task]:
    """The 57 games."""
    return [
        Task(
            id=f"atari-{game.lower()}",
            suite="atari",
            env_id=f"ALE/{game}-v5",
            max_episode_steps=None,
            options=OPTIONS,
            extra="atari",
            description=f"Atari {game}: four grey frames of 84 x 84, {actions} actions",
            factory=partial(AtariEnv, game),
            observation="4×84×84 grey frames",
            action=f"1 of {actions}",
        )
        for game, actions in GAMES.items()
    ]


SUITE = Suite(
    "atari",
    tuple(_tasks()),
    title="Atari",
    simulators=("ale-py",),
    recipes="policies.expert_training.recipes:RECIPES",
    references=MEASURED,
    rules={
        "frames_per_action": 4,
        "frames_pooled": 2,
        "frame_size": 84,
        "frames_stacked": 4,
        "full_action_space": False,
        "most_idle_frames": IDLE_FRAMES,
        "most_frames": FRAMES,
    },
    unit_episodes=1,
)
