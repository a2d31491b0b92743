"""BabyAI: 39 levels of MiniGrid, an instruction and a 7 x 7 symbolic view (arXiv 1810.08272).

* :data:`SUITE` -- the levels.
* :class:`InstructionSpace` -- instructions as a space that SB3 and vector environments can batch.
* :func:`augment` -- an equal episode in other colours, mirrored, or with the compass turned.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import re
import string
from functools import partial
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import (
    create_shared_memory,
    read_from_shared_memory,
    write_to_shared_memory,
)
from numpy.typing import NDArray

from gato_gym.episodes.episode import Episode
from gato_gym.options import PlanOptions
from gato_gym.tasks.levels import bounded_level
from gato_gym.tasks.suite import MEASURED, Suite
from gato_gym.tasks.task import Task, need

LEVELS = (
    "ActionObjDoor", "BlockedUnlockPickup", "BossLevel", "BossLevelNoUnlock", "FindObjS5", "GoTo",
    "GoToDoor", "GoToImpUnlock", "GoToLocal", "GoToObj", "GoToObjDoor", "GoToRedBall",
    "GoToRedBallGrey", "GoToRedBallNoDists", "GoToRedBlueBall", "GoToSeq", "KeyCorridor",
    "MiniBossLevel", "MoveTwoAcrossS8N9", "OneRoomS8", "Open", "OpenDoor", "OpenDoorsOrderN4",
    "OpenRedDoor", "OpenTwoDoors", "Pickup", "PickupAbove", "PickupDist", "PickupLoc",
    "PutNextS7N4", "PutNextLocal", "Synth", "SynthLoc", "SynthSeq", "UnblockPickup", "Unlock",
    "UnlockLocal", "UnlockPickup", "UnlockToUnlock",
)  # fmt: skip
"""The 39 levels of JAT (arXiv 2402.09844), by their MiniGrid names."""

COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
"""MiniGrid's colours in the order of their symbols."""

COLOURED = (4, 5, 6, 7)
"""Symbols of the objects that missions name by colour: door, key, ball, box."""

LONGEST_INSTRUCTION = 512
INSTRUCTION_CHARACTERS = string.ascii_lowercase + " ,"

OPTIONS = PlanOptions(grids=("image",), memory="observations", text_refresh=64)
LEFT, RIGHT = 0, 1
"""Actions that turn."""


class InstructionSpace(spaces.Text):
    """Instructions: a Text space whose batches are fixed-width string arrays.

    Stable-Baselines3's vector environments make buffers from a space's shape and dtype, which
    Gymnasium's Text lacks; here they are () and ``<U512``. Gymnasium's ``SyncVectorEnv`` returns a
    tuple of ``str``, its ``AsyncVectorEnv`` a ``<U512`` array in shared memory.

    Example:
        >>> space = InstructionSpace()
        >>> space.contains("go to the red ball"), np.zeros((2, *space.shape), space.dtype).shape
        (True, (2,))
    """

    def __init__(self, max_length: int = LONGEST_INSTRUCTION, seed: int | None = None) -> None:
        super().__init__(max_length, min_length=1, charset=INSTRUCTION_CHARACTERS, seed=seed)
        self._shape = ()
        self.dtype = np.dtype(f"<U{max_length}")

    def __repr__(self) -> str:
        return f"InstructionSpace({self.max_length})"


@create_shared_memory.register
def _create_instructions(space: InstructionSpace, n: int = 1, ctx: Any = multiprocessing) -> Any:
    return ctx.Array("b", n * np.dtype(space.dtype).itemsize)


@write_to_shared_memory.register
def _write_instruction(space: InstructionSpace, index: int, value: str, shared_memory: Any) -> None:
    _read_instructions(space, shared_memory, index + 1)[index] = value


@read_from_shared_memory.register
def _read_instructions(space: InstructionSpace, shared_memory: Any, n: int = 1) -> Any:
    """A view, not a copy: Gymnasium's vector environments call this only once."""
    return np.frombuffer(shared_memory.get_obj(), space.dtype, count=n)


class BabyAIEnv(gym.Wrapper[Any, Any, Any, Any]):
    """A level whose mission is an :class:`InstructionSpace` and whose direction is an ``int``.

    Args:
        env: MiniGrid's environment.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        inner = env.observation_space
        assert isinstance(inner, spaces.Dict)
        self.observation_space = spaces.Dict(
            {
                "direction": spaces.Discrete(4),
                "image": spaces.Box(0, 255, inner["image"].shape, np.uint8),
                "mission": InstructionSpace(),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode.

        Raises:
            LevelGenerationError: The level's generator did not finish.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        return self._observation(observation), info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """One step; ``info["success"]`` is whether the instruction was followed."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        info = {**info, "success": bool(float(reward) > 0)}
        return self._observation(observation), reward, terminated, truncated, info

    def _observation(self, observation: Any) -> dict[str, Any]:
        return {
            "direction": np.int64(observation["direction"]),
            "image": observation["image"],
            "mission": str(observation["mission"]),
        }


def make_level(level: str, *, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """The environment of a level."""
    need("minigrid", "babyai")
    return BabyAIEnv(bounded_level(f"BabyAI-{level}-v0")(render_mode=render_mode))


NAMES = {
    "FindObjS5": "find-obj-s5",
    "MoveTwoAcrossS8N9": "move-two-across-s8n9",
    "OneRoomS8": "one-room-s8",
    "OpenDoorsOrderN4": "open-doors-order-n4",
    "PutNextS7N4": "put-next",
}
"""JAT's names of the levels whose MiniGrid name ends in a size."""


def level_id(level: str) -> str:
    """``GoToLocal`` to ``babyai-go-to-local``."""
    words = "-".join(re.findall(r"[A-Z][a-z]*", level)).lower()
    return f"babyai-{NAMES.get(level, words)}"


def _tasks() -> list[Task]:
    """The 39 levels."""
    return [
        Task(
            id=level_id(level),
            suite="babyai",
            env_id=f"BabyAI-{level}-v0",
            max_episode_steps=None,
            options=OPTIONS,
            extra="babyai",
            description=f"BabyAI level {level}: follow an instruction in a grid world",
            factory=partial(make_level, level),
            observation="7×7 grid, text",
            action="1 of 7",
            augment=augment,
        )
        for level in LEVELS
    ]


def augment(episode: Episode, generator: np.random.Generator) -> Episode:
    """The same episode under random symmetries of the task.

    There are three exact symmetries. The six colours are permuted in every named object and in the
    instruction. With probability one half, the world is mirrored (view, turns, compass, the words
    left and right). The compass is rotated.

    Args:
        episode: An episode of a BabyAI task.
        generator: Draws the symmetry.

    Returns:
        A new episode; rewards, terminations and the seed stay.
    """
    order = generator.permutation(len(COLOURS))
    mirrored, turned = bool(generator.random() < 0.5), int(generator.integers(4))
    return transform(episode, order, mirrored=mirrored, turned=turned)


def transform(episode: Episode, order: Any, *, mirrored: bool, turned: int) -> Episode:
    """An episode under one symmetry: colour c becomes ``order[c]``, ``turned`` quarter turns."""
    observations = episode.observations
    image = np.array(observations["image"])
    coloured = np.isin(image[..., 0], COLOURED)
    image[..., 1] = np.where(
        coloured, np.asarray(order, np.uint8)[np.minimum(image[..., 1], 5)], image[..., 1]
    )
    direction = np.asarray(observations["direction"])
    actions, executed = np.asarray(episode.actions), episode.executed
    distribution = episode.distribution
    renamed = {name: COLOURS[int(order[i])] for i, name in enumerate(COLOURS)}
    if mirrored:
        image = image[:, ::-1].copy()
        direction = (4 - direction) % 4
        actions = _turn_about(actions)
        executed = None if executed is None else _turn_about(np.asarray(executed))
        if distribution is not None:
            distribution = distribution[:, _turn_about(np.arange(distribution.shape[1]))]
        renamed |= {"left": "right", "right": "left"}
    direction = (direction + turned) % 4
    pattern = re.compile(r"\b(" + "|".join(renamed) + r")\b")
    cache: dict[str, str] = {}
    missions = []
    for mission in observations["mission"]:
        if mission not in cache:
            cache[mission] = pattern.sub(lambda match: renamed[match.group()], mission)
        missions.append(cache[mission])
    new = {"direction": direction, "image": image, "mission": missions}
    return dataclasses.replace(
        episode,
        observations=new,
        actions=actions,
        executed=executed,
        distribution=distribution,
    )


def _turn_about(actions: NDArray[Any]) -> NDArray[Any]:
    """Left for right and right for left."""
    return np.where(actions == LEFT, RIGHT, np.where(actions == RIGHT, LEFT, actions))


SUITE = Suite(
    "babyai",
    tuple(_tasks()),
    title="BabyAI",
    simulators=("minigrid",),
    expert="policies.experts.babyai:make_bot",
    expert_kind="bot",
    references=MEASURED,
    unit_episodes=64,
    navigation=True,
)
