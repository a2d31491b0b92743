"""What is played, fixed before it is played: tasks, rules, episodes and their seeds.

* :class:`Protocol` -- everything that decides what a score means; its :attr:`~Protocol.hash`
  goes into every report.
* :class:`TaskRules` -- the part of it that belongs to one task.
* :class:`EpisodeKey` -- one episode to play; :class:`EpisodeResult` -- how it went;
  :class:`EpisodeFailure` -- why it could not be played to its end.
* :data:`PROTOCOLS` -- the protocols that there are, by name.
* :func:`episode_seed` -- the seed of an episode, below :data:`gato_gym.seeds.TRAINING_SEEDS_START`.
* :func:`differences` -- where two protocols (or any two JSON objects) part; :func:`listed` puts
  them in one line.
* :class:`BenchmarkError` -- a mistake in what was asked for, in one line.

A task's N episodes are chosen by ``(seed, task, index)`` alone, so that neither the number of
environments, nor the number of workers, nor a resume changes which episodes are played, and
short episodes are not counted more often than long ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from benchmarks import rules
from gato_gym.files.bounded_io import as_type
from gato_gym.seeds import TRAINING_SEEDS_START
from gato_gym.simulators import installed_versions
from gato_gym.tasks import get_suite
from policies.rollout.disturbances import UNDISTURBED, Disturbance
from policies.rollout.faults import UsageError
from policies.rollout.outcomes import EpisodeKey

if TYPE_CHECKING:
    from gato_gym.tasks import Task

_SEED_STRIDE = 618_033
"""Coprime to 1,000,000: a task's first million episodes have seeds of their own."""

ALL = "all"
"""The name of what is played where tasks are of several suites."""

STANDARD = "standard"
PROTOCOLS = {
    STANDARD: UNDISTURBED,
    "atari-sticky": Disturbance(sticky=0.25),
    "delayed-actions": Disturbance(action_delay=1),
    "noisy-observations": Disturbance(observation_noise=0.01),
}
"""Protocols by name. Sticky actions are Atari's alone, with the probability that Machado et al.
(arXiv:1709.06009) recommend."""

_SUCCESS = "info['success'] is true at any timestep"
"""What version 1 hashed with each task."""


class BenchmarkError(UsageError):
    """What was asked of the benchmark cannot be done; the message says what to write instead."""


@dataclass(frozen=True)
class TaskRules:
    """What a protocol fixes about a task.

    Attributes:
        env_id: The environment behind the task.
        max_episode_steps: Timesteps after which an episode is cut off; None leaves it to the
            environment.
        sticky, action_delay, observation_noise: Of :class:`Disturbance`.
    """

    env_id: str
    max_episode_steps: int | None
    sticky: float = 0.0
    action_delay: int = 0
    observation_noise: float = 0.0

    @property
    def disturbance(self) -> Disturbance:
        """What the task's environments do beside what the task says."""
        return Disturbance(self.sticky, self.action_delay, self.observation_noise)

    def with_disturbance(self, disturbance: Disturbance) -> TaskRules:
        """The same with another one."""
        return replace(self, **asdict(disturbance))

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, which names of a disturbance what there is."""
        fields = {"env_id": self.env_id, "max_episode_steps": self.max_episode_steps}
        return {**fields, **self.disturbance.values()}


@dataclass(frozen=True)
class Protocol:
    """Everything that decides what a score means, and nothing about who is scored.

    Attributes:
        suite: Suite name; :data:`ALL` for tasks of several.
        tasks: Rules of each task, by task id, sorted.
        episodes: Episodes of each task.
        seed: What the episodes' seeds are derived from.
        simulators: Version of each package the suite's physics and levels come from.
        version: :data:`benchmarks.rules.VERSION`, or 1 as recorded.
        rules: Values of the rules, :func:`benchmarks.rules.rule_values`; under version 1 a hash of
            their sentences. Empty where they are not recorded.
        name: One of :data:`PROTOCOLS`.
    """

    suite: str
    tasks: Mapping[str, TaskRules]
    episodes: int
    seed: int
    simulators: Mapping[str, str]
    version: int = rules.VERSION
    rules: Mapping[str, Any] | str = field(default_factory=rules.rule_values)
    name: str = STANDARD

    @classmethod
    def of_tasks(
        cls, tasks: Sequence[Task], *, episodes: int, seed: int, name: str = STANDARD
    ) -> Protocol:
        """The protocol for playing ``tasks`` in what is installed here.

        Raises:
            BenchmarkError: No tasks, no episodes, a negative seed, or no protocol of that name
                for any of these tasks.
        """
        suites = sorted({task.suite for task in tasks})
        if not suites:
            raise BenchmarkError("got no tasks, expected one or more: name a suite")
        if not 1 <= episodes <= TRAINING_SEEDS_START:
            raise BenchmarkError(
                f"--episodes is {episodes}, expected 1 to {TRAINING_SEEDS_START}: "
                "pass --episodes 20"
            )
        if seed < 0:
            raise BenchmarkError(f"--seed is {seed}, expected 0 or more: pass --seed 0")
        if name not in PROTOCOLS:
            raise BenchmarkError(f"--protocol is {name!r}, expected one of {', '.join(PROTOCOLS)}")
        disturbance = PROTOCOLS[name]
        if disturbance.sticky and "atari" not in suites:
            raise BenchmarkError(
                f"--protocol {name} is of Atari's games, not of {', '.join(suites)}: leave "
                "--protocol out"
            )
        played = {
            task.id: TaskRules(task.env_id, task.max_episode_steps).with_disturbance(
                disturbance if task.suite == "atari" else replace(disturbance, sticky=0.0)
            )
            for task in sorted(tasks, key=lambda task: task.id)
        }
        packages = {name for suite in suites for name in get_suite(suite).simulators}
        simulators = installed_versions(sorted(packages | {"gymnasium"}))
        suite = suites[0] if len(suites) == 1 else ALL
        values = rules.rule_values(suites)
        return cls(suite, played, episodes, seed, simulators, rules=values, name=name)

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that change when anything in the protocol does."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def episodes_of(self, task: str) -> tuple[EpisodeKey, ...]:
        """The episodes of a task, in order."""
        return tuple(
            EpisodeKey(
                task, index, episode_seed(self.seed, task, index), self.tasks[task].disturbance
            )
            for index in range(self.episodes)
        )

    def has_episode(self, key: EpisodeKey) -> bool:
        """Whether an episode is one of :meth:`episodes_of`, without listing them all."""
        known = key.task in self.tasks and 0 <= key.index < self.episodes
        return known and key.seed == episode_seed(self.seed, key.task, key.index)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "version": self.version,
            **({"name": self.name} if self.name != STANDARD else {}),
            **({"rules": self.rules} if self.rules else {}),
            "suite": self.suite,
            "episodes": self.episodes,
            "seed": self.seed,
            "simulators": dict(self.simulators),
            "tasks": {
                task: {**each.to_json(), **({"success": _SUCCESS} if self.version == 1 else {})}
                for task, each in self.tasks.items()
            },
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Protocol:
        """The inverse of :meth:`to_json`, of version 1 too.

        Raises:
            KeyError: A field is missing.
            ValueError: One is of another type, or there are more episodes than seeds.
        """
        fields = {name: each for name, each in value.items() if name != "tasks"}
        tasks = as_type(dict[str, dict[str, Any]], value["tasks"], "protocol.tasks")
        played = {
            task: as_type(
                TaskRules,
                {name: each for name, each in rules.items() if name != "success"},
                f"protocol.tasks.{task}",
            )
            for task, rules in tasks.items()
        }
        protocol: Protocol = as_type(cls, {"rules": "", **fields, "tasks": {}}, "protocol")
        if not 1 <= protocol.episodes <= TRAINING_SEEDS_START:
            raise ValueError(
                f"protocol.episodes is {protocol.episodes}, expected 1 to {TRAINING_SEEDS_START}"
            )
        return replace(protocol, tasks=played)

    def current(self) -> Protocol:
        """The same protocol as this version writes it; itself where its sentences said otherwise.

        Version 1 without a hash of sentences becomes this version without values.
        """
        if self.version != 1 or (self.rules and rules.WORDINGS.get(str(self.rules), "other")):
            return self
        suites = sorted({task.split("-", 1)[0] for task in self.tasks})
        values = rules.rule_values(suites) if self.rules else ""
        return replace(self, version=rules.VERSION, rules=values)

    def differences(
        self, other: Protocol, *, sides: tuple[str, str] = ("recorded", "asked for")
    ) -> list[str]:
        """Every place where another protocol parts from this one; empty where the two compare.

        Version 1 is read as the version that means the same. Where no version does, a line says
        so, and names the hash of its sentences.
        """
        pair = [self.current(), other.current()]
        lines = []
        if pair[0].version != pair[1].version and 1 in (pair[0].version, pair[1].version):
            old = next(each for each in pair if each.version == 1)
            why = rules.WORDINGS.get(str(old.rules), "which this version does not know")
            lines = [f"protocol.rules: version 1, sentences of hash {old.rules}: {why}"]
            pair = [replace(each, version=rules.VERSION, rules="") for each in pair]
        one, two = (each.to_json() for each in pair)
        return lines + differences(one, two, path="protocol", sides=sides)

    @property
    def label(self) -> str:
        """How it was played, in a few words."""
        episodes = "1 episode" if self.episodes == 1 else f"{self.episodes} episodes"
        return f"{episodes} a task, seed {self.seed}, {self.name} protocol {self.hash}"

    @property
    def rules_label(self) -> str:
        """The rules that were kept to, in a few words."""
        if isinstance(self.rules, str):
            return f"in words, hash {self.rules}" if self.rules else "not recorded"
        return f"version {self.version}"


def episode_seed(seed: int, task: str, index: int) -> int:
    """The environment seed of a task's episode.

    An offset hashed from ``(seed, task)``, then a fixed stride modulo 1,000,000: two episodes of
    a task never share a seed.

    Returns:
        A number in [0, 1,000,000), the range no training episode draws from.

    Example:
        >>> seeds = {episode_seed(0, "babyai-open", index) for index in range(1000)}
        >>> len(seeds), max(seeds) < TRAINING_SEEDS_START
        (1000, True)
    """
    digest = hashlib.blake2b(f"{seed}/{task}".encode(), digest_size=8).digest()
    offset = int.from_bytes(digest, "little")
    return (offset + index * _SEED_STRIDE) % TRAINING_SEEDS_START


def differences(
    recorded: Any,
    asked: Any,
    *,
    path: str = "",
    sides: tuple[str, str] = ("recorded", "asked for"),
) -> list[str]:
    """Every place where two JSON values part, as ``path: recorded -> asked``.

    Args:
        recorded: One value.
        asked: The other.
        path: What both are a part of.
        sides: What the two are called, where one has a part that the other has not.

    Example:
        >>> differences({"seed": 0, "episodes": 5}, {"seed": 0, "episodes": 20})
        ['episodes: 5 -> 20']
    """
    if isinstance(recorded, Mapping) and isinstance(asked, Mapping):
        lines: list[str] = []
        for key in sorted({*recorded, *asked}):
            where = f"{path}.{key}" if path else str(key)
            if key not in asked:
                lines.append(f"{where}: {sides[0]} only")
            elif key not in recorded:
                lines.append(f"{where}: {sides[1]} only")
            else:
                lines.extend(differences(recorded[key], asked[key], path=where, sides=sides))
        return lines
    return [] if recorded == asked else [f"{path}: {recorded} -> {asked}"]


def listed(items: Sequence[str], *, most: int = 5) -> str:
    """Items separated by semicolons, those beyond ``most`` counted only.

    Example:
        >>> listed(["seed: 0 -> 1", "episodes: 5 -> 20"], most=1)
        'seed: 0 -> 1; and 1 more'
    """
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return "; ".join([*items[:most], *more])
