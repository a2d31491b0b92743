"""Whether EnvPool plays as the suites' simulators do: ``python -m benchmarks.studies.envpool``.

Both are started with the same seed, and then, where that can be done, from the same state: EnvPool
draws starts with random numbers of its own. From there both take the same random actions. What
:func:`compared` finds of each task is printed as the rows of ``docs/envpool.md``.

* :class:`Pair` -- a task, and EnvPool's name for it; :data:`PAIRS` are those compared.
* :func:`compared` -- plays both, and returns a :class:`Comparison`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gato_gym.commands.common import Command, Invocation, run_command
from gato_gym.ranges import check_range
from gato_gym.tasks import get_task
from gato_gym.tasks.atari import AtariVectorEnv
from gato_gym.tasks.babyai import LONGEST_INSTRUCTION
from gato_gym.tasks.task import need

Vector = NDArray[Any]
Starts = Callable[[Any, Any, Mapping[str, Any]], Iterator[Any]]
"""From the reference environment and EnvPool's first observation and info: puts the environment in
one start after another that may be EnvPool's, and yields its observation."""

SEARCHED = 300
"""Seeds of the reference among which EnvPool's start is looked for."""

PADDED = 3
"""Steps after which a stack of four frames has no frame from before the start."""

_Followed = tuple[Vector, Vector, bool]

ROWS = 16
"""Environments whose speed is measured."""


def by_seed(env: Any, first: Any, info: Mapping[str, Any]) -> Iterator[Any]:
    """Starts whose newest frame, or whose view and mission, are EnvPool's."""
    for seed in range(SEARCHED):
        observation, _ = env.reset(seed=seed)
        if _newest(observation) == _newest(first):
            yield observation


def _newest(observation: Any) -> bytes:
    """What tells starts apart: a dictionary, or the newest of a stack of frames."""
    seen = _vector(observation) if isinstance(observation, dict) else observation[-1]
    return bytes(seen.astype(np.float64).tobytes())


def by_joints(env: Any, first: Any, info: Mapping[str, Any], hidden: int) -> Iterator[Any]:
    """Gymnasium's MuJoCo in the joint positions and speeds that EnvPool shows, after ``hidden``."""
    env.reset(seed=0)
    inner, joints = env.unwrapped, env.unwrapped.model.nq - hidden
    place = [info.get(f"{axis}_position", 0.0) for axis in "xy"[:hidden]]
    inner.set_state(np.array([*place, *first[:joints]]), first[joints : joints + inner.model.nv])
    yield inner._get_obs()


def by_physics(
    env: Any, first: Any, info: Mapping[str, Any], positions: Callable[[Vector], ArrayLike]
) -> Iterator[Any]:
    """dm_control's physics in the state that EnvPool shows."""
    env.reset(seed=0)
    inner, numbers = env.unwrapped._env, _vector(first)
    physics = inner.physics
    with physics.reset_context():
        place = np.asarray(positions(numbers))
        speeds = numbers[len(numbers) - physics.model.nv :]
        physics.set_state(np.concatenate([place, speeds]))
    yield inner.task.get_observation(physics)


def by_objects(env: Any, first: Any, info: Mapping[str, Any]) -> Iterator[Any]:
    """Meta-World with EnvPool's object and goal."""
    env.reset(seed=0)
    inner = env.unwrapped
    inner._freeze_rand_vec = True
    inner._last_rand_vec = np.concatenate([first[4:7], first[36:39]])
    yield inner.reset()[0]


def by_goal(env: Any, first: Any, info: Mapping[str, Any]) -> Iterator[Any]:
    """FetchReach with EnvPool's goal."""
    env.reset(seed=0)
    env.unwrapped.goal = first["desired_goal"].copy()
    yield env.unwrapped._get_obs()


@dataclass(frozen=True)
class Pair:
    """A task, and EnvPool's name for it.

    Attributes:
        task: Task id.
        env_id: EnvPool's.
        starts: How the reference comes to EnvPool's start.
        options: EnvPool's options.
    """

    task: str
    env_id: str
    starts: Starts
    options: Mapping[str, Any] = field(default_factory=dict)


_ALE = {"noop_max": 30, "use_fire_reset": False, "max_episode_steps": 27_000}
_HIDDEN = {
    "ant": ("Ant-v5", 2), "halfcheetah": ("HalfCheetah-v5", 1), "hopper": ("Hopper-v5", 1),
    "humanoid": ("Humanoid-v5", 2), "pendulum": ("InvertedPendulum-v5", 0),
    "standup": ("HumanoidStandup-v5", 2), "swimmer": ("Swimmer-v5", 2),
    "walker": ("Walker2d-v5", 1),
}  # fmt: skip
_PHYSICS: Mapping[str, tuple[str, Callable[[Vector], ArrayLike]]] = {
    "ball_in_cup-catch": ("BallInCupCatch-v1", lambda seen: seen[:4]),
    "cartpole-swingup": (
        "CartpoleSwingup-v1",
        lambda seen: (seen[0], np.arctan2(seen[2], seen[1])),
    ),
    "cheetah-run": ("CheetahRun-v1", lambda seen: (0.0, *seen[:8])),
    "pendulum-swingup": ("PendulumSwingup-v1", lambda seen: (np.arctan2(seen[1], seen[0]),)),
    "point_mass-easy": ("PointMassEasy-v1", lambda seen: seen[:2]),
}
_GRIDS = {
    "babyai-go-to-local": "BabyAI-GoToLocal-v0",
    "babyai-go-to-obj": "BabyAI-GoToObj-v0",
    "minigrid-dist-shift1": "MiniGrid-DistShift1-v0",
    "minigrid-door-key-5x5": "MiniGrid-DoorKey-5x5-v0",
    "minigrid-empty-8x8": "MiniGrid-Empty-8x8-v0",
    "minigrid-empty-random-5x5": "MiniGrid-Empty-Random-5x5-v0",
}

PAIRS = (
    *(
        Pair(f"atari-{game.lower()}", f"{game}-v5", by_seed, _ALE)
        for game in ("Breakout", "MsPacman", "Pong", "Qbert")
    ),
    *(Pair(task, env_id, by_seed) for task, env_id in _GRIDS.items()),
    *(
        Pair(f"dm_control-{name}", env_id, partial(by_physics, positions=positions))
        for name, (env_id, positions) in _PHYSICS.items()
    ),
    *(
        Pair(
            f"metaworld-{name}",
            f"MetaWorld/{env_id}-v3",
            by_objects,
            {"partially_observable": False},
        )
        for name, env_id in (("pick-place", "PickPlace"), ("push", "Push"), ("reach", "Reach"))
    ),
    *(
        Pair(f"mujoco-{name}", env_id, partial(by_joints, hidden=hidden))
        for name, (env_id, hidden) in _HIDDEN.items()
    ),
    Pair("robotics-fetch-reach", "FetchReach-v4", by_goal),
)
"""What is compared: the tasks whose start can be set, or be one of few."""


@dataclass(frozen=True)
class Comparison:
    """What a task's episodes have shown, the worst of all seeds.

    Attributes:
        task: Task id.
        same_seed: Whether the same seed gives the same first observation.
        observations: Largest difference at the start and after each step; None without a start
            that both have.
        rewards: Largest difference after each step.
        ends: Whether episodes end at the same step, for the same reason.
        speeds: Steps a CPU second of 16 environments: the reference's, EnvPool's.
    """

    task: str
    same_seed: bool
    observations: Vector | None
    rewards: Vector
    ends: bool
    speeds: tuple[float, float]

    def row(self) -> str:
        """As a row of a table in Markdown."""
        speeds = " | ".join(f"{speed:,.0f}" for speed in self.speeds)
        seeds = "equal" if self.same_seed else "differ"
        if self.observations is None:
            return f"| {self.task} | {seeds} | no start in common | – | – | {speeds} |"
        ends = "equal" if self.ends else "differ"
        return (
            f"| {self.task} | {seeds} | {_words(self.observations)} | {_words(self.rewards)} | "
            f"{ends} | {speeds} |"
        )


def _words(differences: Vector) -> str:
    """Of the largest differences by step."""
    if not differences.any():
        return "equal"
    if not differences[PADDED:].any():
        return f"equal from step {PADDED} on"
    return f"up to {differences.max():.1g}"


def compared(pair: Pair, *, seeds: int, steps: int) -> Comparison:
    """Play a task in both simulators.

    Args:
        pair: The task.
        seeds: Starts of EnvPool's.
        steps: Steps of each, at most.

    Raises:
        MissingPackageError: EnvPool or the task's simulator is not installed.
    """
    env = get_task(pair.task).make()
    same_seed, played = True, []
    for seed in range(seeds):
        env.action_space.seed(seed)
        actions = [env.action_space.sample() for _ in range(steps)]
        episode = _record(pair, seed, actions)
        same_seed &= not _apart(env.reset(seed=seed)[0], episode.observations[0])
        starts = pair.starts(env, episode.observations[0], episode.info)
        played.append(_nearest(_follow(env, start, actions, episode) for start in starts))
    env.close()
    common = [each for each in played if each is not None]
    return Comparison(
        pair.task,
        same_seed,
        _worst([each[0] for each in common]) if len(common) == seeds else None,
        _worst([each[1] for each in common]),
        all(each[2] for each in common),
        (_speed(_reference(pair.task)), _speed(_pool(pair, 0, ROWS))),
    )


@dataclass(frozen=True)
class _Episode:
    """What EnvPool played: its first info, and by step what it returned."""

    info: Mapping[str, Any]
    observations: Sequence[Any]
    rewards: Sequence[np.generic]
    ends: Sequence[tuple[bool, bool]]


def _pool(pair: Pair, seed: int, rows: int) -> Any:
    make = need("envpool", "envpool").make_gymnasium
    return make(pair.env_id, num_envs=rows, num_threads=1, seed=seed, **pair.options)


def _record(pair: Pair, seed: int, actions: Sequence[Any]) -> _Episode:
    pool = _pool(pair, seed, 1)
    batch, infos = pool.reset()
    info = {key: value[0] for key, value in infos.items() if key != "players"}
    observations, rewards, ends = [_row(batch)], [], []
    for action in actions:
        batch, reward, terminated, truncated, _ = pool.step(np.array([action]))
        observations.append(_row(batch))
        rewards.append(reward[0])
        ends.append((bool(terminated[0]), bool(truncated[0])))
        if any(ends[-1]):
            break
    return _Episode(info, observations, rewards, ends)


def _row(batch: Any) -> Any:
    """Of a batch of one; missions, which EnvPool has as bytes, are texts."""
    if isinstance(batch, dict):
        row = {name: value[0].copy() for name, value in batch.items()}
        if "mission" in row:
            row["mission"] = row["mission"].tobytes().rstrip(b"\0").decode()
        return row
    return batch[0].copy()


def _follow(env: Any, start: Any, actions: Sequence[Any], episode: _Episode) -> _Followed:
    """The same actions in the reference: differences of observations and rewards, equal ends."""
    apart, rewards = [_apart(start, episode.observations[0])], []
    for action, seen, paid, ends in zip(
        actions, episode.observations[1:], episode.rewards, episode.ends, strict=False
    ):
        observation, reward, *ended, _ = env.step(action)
        apart.append(_apart(observation, seen))
        rewards.append(abs(float(type(paid)(reward)) - float(paid)))  # EnvPool's are float32
        if tuple(map(bool, ended)) != ends:
            return np.array(apart), np.array(rewards), False
    return np.array(apart), np.array(rewards), True


def _nearest(followed: Iterable[_Followed]) -> _Followed | None:
    """The first that becomes equal, or else the nearest."""
    nearest = None
    for each in followed:
        if not each[0][PADDED:].any():
            return each
        if nearest is None or each[0].sum() < nearest[0].sum():
            nearest = each
    return nearest


def _apart(observation: Any, other: Any) -> float:
    """The largest difference of two observations."""
    difference = _vector(observation).astype(np.float64) - _vector(other)
    return float(np.abs(difference).max())


def _vector(observation: Any) -> Vector:
    """All numbers of an observation; a text's characters are numbers."""
    if isinstance(observation, dict):
        return np.concatenate([_vector(observation[name]) for name in sorted(observation)])
    if isinstance(observation, str):
        text = np.frombuffer(observation.encode(), np.uint8)
        return np.pad(text, (0, LONGEST_INSTRUCTION - len(text)))
    return np.ravel(observation)


def _worst(series: Sequence[Vector]) -> Vector:
    """The largest of each step, of series that may end sooner."""
    longest = max(map(len, series), default=1)
    return np.max(
        [np.pad(each, (0, longest - len(each))) for each in (*series, np.zeros(1))], axis=0
    )


def _reference(task_id: str) -> gym.vector.VectorEnv[Any, Any, Any]:
    task = get_task(task_id)
    if task.suite == "atari":
        return AtariVectorEnv(task.env_id[len("ALE/") : -len("-v5")], ROWS, threads=1)
    return gym.vector.SyncVectorEnv([task.make] * ROWS)


def _speed(envs: Any, steps: int = 50) -> float:
    """Steps a CPU second."""
    envs.reset()
    actions = [np.array([envs.single_action_space.sample() for _ in range(ROWS)]) for _ in range(8)]
    start = time.process_time()
    for step in range(steps):
        envs.step(actions[step % len(actions)])
    seconds = time.process_time() - start
    envs.close()
    return ROWS * steps / max(seconds, 1e-9)


@dataclass(frozen=True)
class EnvPoolStudy(Command):
    """Compare EnvPool with the suites' own simulators.

    Attributes:
        tasks: Part of the ids of the tasks to compare; by default all.
        seeds: Starts of each task.
        steps: Steps of each episode, at most.
    """

    tasks: str = ""
    seeds: int = 3
    steps: int = 100

    def __post_init__(self) -> None:
        check_range(self, "seeds", low=1, high=1000)
        check_range(self, "steps", low=1, high=10_000)

    def run(self, call: Invocation) -> None:
        names = "task, same seed, observations, rewards, ends, steps a CPU second, EnvPool's"
        heads = names.split(", ")
        print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
        for pair in PAIRS:
            if self.tasks in pair.task:
                print(compared(pair, seeds=self.seeds, steps=self.steps).row(), flush=True)


main = partial(run_command, EnvPoolStudy, prog="python -m benchmarks.studies.envpool")

if __name__ == "__main__":
    sys.exit(main())
