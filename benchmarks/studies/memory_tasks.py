"""Small tasks of all kinds, each with a scripted expert, for the study of memory.

* :data:`TASKS` -- what is studied; importing this registers the environments that are its own.
* :class:`SmallTask` -- one of them.
* :class:`Scripted` -- an expert's rule behind ``predict``.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TransformObservation
from numpy.typing import NDArray

WORDS = spaces.Text(16, charset=string.ascii_lowercase + " ")

Rule = Callable[[Any, Any], Any]
"""An action from the unwrapped environment and an observation."""


class Scripted:
    """An expert that may look into its environment.

    Args:
        env: The environment.
        rule: What it does.
    """

    def __init__(self, env: gym.Env[Any, Any], rule: Rule) -> None:
        self._env, self._rule = env, rule

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:  # fmt: skip
        """The rule's action, and ``state`` as it is."""
        space = self._env.action_space
        action = np.asarray(self._rule(self._env.unwrapped, observation), space.dtype)
        return action.reshape(space.shape or ()), state


@dataclass(frozen=True)
class SmallTask:
    """One task.

    Attributes:
        name: Of its line.
        what: What is observed, in words.
        needs: What an expert's action depends on: "now", the observation alone, or "past".
        env_id: Id of its environment.
        rule: Its expert's.
    """

    name: str
    what: str
    needs: str
    env_id: str
    rule: Rule


class Catch(gym.Env[Any, Any]):
    """A ball falls through a picture of 16 x 16 pixels, and a bar of three pixels is to catch it.

    The ball drifts sideways at a speed of its own, which one picture does not show. With
    ``drift=False`` it falls straight. The return is 1 for a catch, 0 otherwise.
    """

    side: ClassVar[int] = 16
    observation_space = spaces.Box(0, 255, (16, 16, 1), np.uint8)
    action_space = spaces.Discrete(3)

    def __init__(self, *, drift: bool) -> None:
        self._drift = drift

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin with the ball at the top."""
        super().reset(seed=seed)
        self.row, self.bar = 0, int(self.np_random.integers(1, self.side - 1))
        self.column = int(self.np_random.integers(2, self.side - 2))
        self.speed = int(self.np_random.integers(-1, 2)) if self._drift else 0
        return self._picture(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move the bar left, not at all, or right; the ball bounces off the sides."""
        self.bar = int(np.clip(self.bar + int(action) - 1, 1, self.side - 2))
        if not 0 <= self.column + self.speed < self.side:
            self.speed = -self.speed
        self.column, self.row = self.column + self.speed, self.row + 1
        ended = self.row == self.side - 1
        return self._picture(), float(ended and abs(self.column - self.bar) < 2), ended, False, {}

    def _picture(self) -> NDArray[np.uint8]:
        picture = np.zeros(self.observation_space.shape, np.uint8)
        picture[self.row, self.column] = 255
        picture[-1, self.bar - 1 : self.bar + 2] = 128
        return picture

    def landing(self) -> int:
        """The column where the ball will arrive."""
        last = 2 * (self.side - 1)
        place = (self.column + self.speed * (self.side - 1 - self.row)) % last
        return min(place, last - place)


class Fetch(gym.Env[Any, Any]):
    """A picture of two squares, where the hand is, and a text that says which square to reach.

    The action is a speed in the plane. The reward is minus the distance that is left.
    """

    colours: ClassVar[tuple[str, ...]] = ("red", "blue")
    observation_space = spaces.Dict(
        picture=spaces.Box(0, 255, (16, 16, 3), np.uint8),
        hand=spaces.Box(-1, 1, (2,)),
        text=WORDS,
    )
    action_space = spaces.Box(-1, 1, (2,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin with the hand and both squares anywhere."""
        super().reset(seed=seed)
        self.hand = self.np_random.uniform(-1, 1, 2)
        self.cells = self.np_random.integers(0, 7, (2, 2))
        self.asked = int(self.np_random.integers(2))
        return self._observation(), {}

    @property
    def target(self) -> NDArray[np.float64]:
        """Where the square is that the text asks for: float64 ``[2]``, in [-1, 1]."""
        return (2 * self.cells[self.asked] + 1) / 7.5 - 1

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move the hand by a fifth of the action."""
        self.hand = np.clip(self.hand + 0.2 * np.asarray(action), -1, 1)
        distance = float(np.linalg.norm(self.hand - self.target))
        return self._observation(), -distance, False, False, {}

    def _observation(self) -> dict[str, Any]:
        picture = np.zeros((16, 16, 3), np.uint8)
        for channel, (column, row) in zip((0, 2), 2 * self.cells, strict=True):
            picture[row : row + 2, column : column + 2, channel] = 255
        text = f"go to {self.colours[self.asked]}"
        return {"picture": picture, "hand": self.hand.astype(np.float32), "text": text}


class Reach(gym.Env[Any, Any]):
    """A point with inertia that is to stop at a goal; a Dict of numbers, as robots' tasks have.

    The reward is minus the distance that is left.
    """

    observation_space = spaces.Dict(
        achieved_goal=spaces.Box(-2, 2, (2,)),
        desired_goal=spaces.Box(-1, 1, (2,)),
        observation=spaces.Box(-2, 2, (4,)),
    )
    action_space = spaces.Box(-1, 1, (2,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin at rest anywhere."""
        super().reset(seed=seed)
        self.place, self.goal = self.np_random.uniform(-1, 1, (2, 2))
        self.speed = np.zeros(2)
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Accelerate."""
        self.speed = np.clip(self.speed + 0.05 * np.asarray(action), -0.3, 0.3)
        self.place = np.clip(self.place + self.speed, -2, 2)
        distance = float(np.linalg.norm(self.place - self.goal))
        return self._observation(), -distance, False, False, {}

    def _observation(self) -> dict[str, Any]:
        place, goal = self.place.astype(np.float32), self.goal.astype(np.float32)
        full = np.concatenate([place, self.speed.astype(np.float32)])
        return {"achieved_goal": place, "desired_goal": goal, "observation": full}


class Corridor(gym.Env[Any, Any]):
    """A T-maze: the first observation says where to turn at the end of a corridor.

    Later observations are the same for both ends: the place, and whether it is the junction. The
    return is 1 for the right turn, 0 for a wrong one or one on the way.
    """

    length: ClassVar[int] = 8
    observation_space = spaces.Box(-1, 1, (3,))
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin at the sign."""
        super().reset(seed=seed)
        self.place, self.side = 0, int(self.np_random.integers(2))
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Walk on (2), or turn left or right (0, 1), which ends the episode."""
        ended, right = int(action) != 2, self.place == self.length and int(action) == self.side
        self.place = min(self.place + 1, self.length)
        return self._observation(), float(ended and right), ended, False, {}

    def _observation(self) -> NDArray[np.float32]:
        sign = 0 if self.place else 2 * self.side - 1
        return np.array([sign, self.place / self.length, self.place == self.length], np.float32)


class Command(gym.Env[Any, Any]):
    """A text alone says what to do now; each step that does it is worth 1."""

    words: ClassVar[tuple[str, ...]] = ("go left", "go right", "jump", "wait")
    observation_space, action_space = WORDS, spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        """Begin with any command."""
        super().reset(seed=seed)
        return self._next(), {}

    def step(self, action: Any) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Do something."""
        reward = float(int(action) == self.asked)
        return self._next(), reward, False, False, {}

    def _next(self) -> str:
        self.asked = int(self.np_random.integers(4))
        return self.words[self.asked]


def positions() -> gym.Env[Any, Any]:
    """CartPole without its speeds."""
    return TransformObservation(
        gym.make("CartPole-v1"),
        lambda seen: seen[[0, 2]].astype(np.float32),
        spaces.Box(-5, 5, (2,)),
    )


def _balance(world: Any, _: Any) -> int:
    x, speed, angle, turning = world.state
    return int(angle + 0.5 * turning + 0.02 * x + 0.05 * speed > 0)


def _swing_up(world: Any, seen: Any) -> Any:
    """Pump energy, and balance near the top."""
    angle, turning = math.atan2(seen[1], seen[0]), float(seen[2])
    if abs(angle) < 0.5:
        return np.clip([-10 * angle - 2 * turning], -2, 2)
    energy = turning**2 / 6 + 5 * math.cos(angle)
    return np.clip([(5 - energy) * turning], -2, 2)


def _seek(world: Any, seen: Any) -> Any:
    return np.clip(2 * (world.goal - world.place) - 6 * world.speed, -0.05, 0.05) * 20


def _bot(world: Any, _: Any) -> int:
    from policies.experts.minigrid import next_action

    return next_action(world)


def _taxi(world: Any, seen: Any) -> int:
    """Greedy in the values of the known transitions."""
    if not hasattr(world, "best_actions"):
        chances = [[world.P[s][a][0] for a in range(6)] for s in range(500)]
        following = np.array([[move[1] for move in moves] for moves in chances])
        rewards = np.array([[move[2] for move in moves] for moves in chances], float)
        going = np.array([[not move[3] for move in moves] for moves in chances])
        values = np.zeros(500)
        for _ in range(60):
            gains = rewards + going * values[following]
            values = gains.max(1)
        world.best_actions = gains.argmax(1)
    return int(world.best_actions[int(seen)])


def _register(
    name: str, kind: Callable[..., gym.Env[Any, Any]], steps: int, **arguments: Any
) -> str:
    gym.register(
        env_id := f"MemoryStudy/{name}-v0",
        entry_point=f"{kind.__module__}:{kind.__name__}",
        kwargs=arguments,
        max_episode_steps=steps,
    )
    return env_id


TASKS = (
    SmallTask("cart-pole", "four numbers", "now", "CartPole-v1", _balance),
    SmallTask("pendulum", "three numbers", "now", "Pendulum-v1", _swing_up),
    SmallTask(
        "mountain-car", "two numbers", "now", "MountainCar-v0",
        lambda world, seen: 2 * int(seen[1] >= 0),
    ),
    SmallTask(
        "acrobot", "six numbers", "now", "Acrobot-v1", lambda world, seen: 2 * int(seen[5] > 0)
    ),
    SmallTask(
        "cart-pole-positions", "two numbers without speeds", "past",
        _register("Positions", positions, 500), _balance,
    ),
    SmallTask(
        "corridor", "three numbers, a clue in the first", "past",
        _register("Corridor", Corridor, 20),
        lambda world, seen: world.side if world.place == world.length else 2,
    ),
    SmallTask("reach", "a Dict of numbers", "now", _register("Reach", Reach, 40), _seek),
    SmallTask("taxi", "one of 500 states", "now", "Taxi-v4", _taxi),
    SmallTask(
        "command", "a text", "now", _register("Command", Command, 20),
        lambda world, seen: world.asked,
    ),
    SmallTask(
        "catch", "a picture", "now", _register("Catch", Catch, 20, drift=False),
        lambda world, seen: 1 + int(np.sign(world.column - world.bar)),
    ),
    SmallTask(
        "catch-drifting", "a picture without speeds", "past",
        _register("CatchDrifting", Catch, 20, drift=True),
        lambda world, seen: 1 + int(np.sign(world.landing() - world.bar)),
    ),
    SmallTask(
        "fetch", "a picture, numbers and a text", "now", _register("Fetch", Fetch, 20),
        lambda world, seen: np.clip(3 * (world.target - world.hand), -1, 1),
    ),
    SmallTask(
        "minigrid", "a symbolic view with a text", "past", "minigrid:MiniGrid-DoorKey-5x5-v0", _bot
    ),
)  # fmt: skip
