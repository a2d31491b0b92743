"""Episodes that ``gato-mini`` learns from, round by round, and how often they are drawn.

* :func:`collections` -- what the experts play.
* :func:`labelled_collections` -- what the network plays and the experts label.
* :func:`datasets` -- paths of all that a round learns from.
* :func:`emphasis` -- how much more of a weak task is drawn.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.references import Reference, TaskReferences, measured
from gato_gym.episodes.minari_datasets import find_minari, returns_of
from gato_gym.tasks import Task, list_tasks
from policies.collection.jobs import CollectSettings, dataset_id
from policies.collection.recorder import RecordSettings
from policies.experts import has_expert
from policies.gato.checkpoint import read_tasks
from policies.gato.checkpoint_folder import locate_checkpoint

EXPERT_PLAY = {
    "atari": CollectSettings(
        Path(),
        RecordSettings(noise=0.1, keep=0.0, most_steps=4_000),
        steps=20_000,
        expert_episodes=2,  # some last 27,000 steps
    ),
    "babyai": CollectSettings(  # as many episodes of long levels: each has its own mission
        Path(), RecordSettings(noise=0.2), episodes=1_000, steps=20_000, expert_episodes=5
    ),
    "dm_control": CollectSettings(  # many starts: of finger and reacher each has its own target
        Path(),
        RecordSettings(noise=0.3, keep=0.0, most_steps=300),
        steps=60_000,
        expert_episodes=5,
    ),
    "metaworld": CollectSettings(
        Path(),
        RecordSettings(noise=0.8, steps_after_success=40),
        episodes=50,
        expert_episodes=5,
    ),
    "mujoco": CollectSettings(
        Path(), RecordSettings(noise=0.3, keep=0.0), steps=45_000, expert_episodes=5
    ),
}
"""What the experts play of each task, by suite."""

SUITES = tuple(EXPERT_PLAY)

LABELLED_STEPS = {
    "atari": 10_000, "babyai": 20_000, "dm_control": 10_000, "metaworld": 3_000, "mujoco": 4_000,
}  # fmt: skip
"""Steps that the network plays of each task in a round, at least."""

LABELLED_FROM = {"atari": 3, "metaworld": 4}
"""Round from which a suite has such steps, where not from the first: Atari's take the longest, and
Meta-World's are for what comes after an episode's success, where it already has that."""

MOST_STEPS = {
    "atari": 2_000, "babyai": 512, "dm_control": 250, "metaworld": 500, "mujoco": 1_000,
}  # fmt: skip
"""Steps after which an episode of the network is left, as it may be stuck."""

SHORTENED = {"atari": 1.0, "dm_control": 0.25}
"""Suites whose experts play longer than :data:`MOST_STEPS`: the network's episodes are compared
with as many steps of the expert's, and with this share of what random play returns."""

MOST_EMPHASIS = 4.0
"""Share of a task whose network is as good as random play, over that of one as good as its expert.
"""


def known_tasks(suite: str) -> list[Task]:
    """A suite's tasks that have an expert."""
    return [task for task in list_tasks(suite) if has_expert(task.id)]


def collections(root: Path) -> list[tuple[list[Task], CollectSettings]]:
    """What the experts play: tasks with one collection each."""
    return [
        (known_tasks(suite), replace(settings, root=root))
        for suite, settings in EXPERT_PLAY.items()
    ]


def labelled_suites(number: int) -> tuple[str, ...]:
    """Suites that the network plays, and the experts label, in a round."""
    return tuple(suite for suite in LABELLED_STEPS if number >= LABELLED_FROM.get(suite, 0))


def labelled_tasks(suite: str, player: str | None) -> list[Task]:
    """The known tasks of a suite that an earlier network plays; None plays all of them."""
    if player is None:
        return known_tasks(suite)
    names = read_tasks(locate_checkpoint(player))
    return [task for task in known_tasks(suite) if task.id in names]


def labelled_collections(
    root: Path, number: int, player: str, *, first: int = 0
) -> list[tuple[list[Task], CollectSettings]]:
    """What a network plays, and the experts label, in round ``number``.

    Args:
        root: Folder of the datasets.
        number: The round.
        player: The network's checkpoint.
        first: The first round, in which an earlier network plays the tasks that it knows.
    """
    record = RecordSettings(seed=number, player=player)
    folder = labelled_folder(root, number)
    return [
        (
            labelled_tasks(suite, None if number > first else player),
            CollectSettings(folder, replace(record, most_steps=MOST_STEPS[suite]), steps=steps),
        )
        for suite, steps in LABELLED_STEPS.items()
        if suite in labelled_suites(number)
    ]


def labelled_folder(root: Path, number: int) -> Path:
    """Where the episodes of a round are, before each of which the network is another."""
    return root / f"round-{number}"


def evenly(tasks: list[Task], most: int | None) -> list[Task]:
    """At most so many of the tasks, at equal distances in their order; None for all."""
    if most is None or most >= len(tasks):
        return tasks
    return [tasks[i * len(tasks) // most] for i in range(most)]


def datasets(
    root: Path,
    number: int = 0,
    suites: tuple[str, ...] = SUITES,
    *,
    player: str | None = None,
    first: int = 0,
    most_tasks: int | None = None,
    labelled_root: Path | None = None,
) -> tuple[str, ...]:
    """Paths of all episodes that round ``number`` learns from, with an earlier player's.

    Args:
        root: Folder of the datasets.
        number: The round.
        suites: Whose tasks.
        player: The earlier network of the first round's labelled episodes; None has none.
        first: The first round.
        most_tasks: Tasks of each suite, see :func:`evenly`.
        labelled_root: Folder of the labelled episodes' datasets; None for the same as ``root``.
    """
    chosen = {suite: evenly(known_tasks(suite), most_tasks) for suite in suites}
    paths = [root / dataset_id(task) for tasks in chosen.values() for task in tasks]
    labelled = RecordSettings(player="")
    for before in range(max(first, 1 if player is None else 0), number + 1):
        folder = labelled_folder(labelled_root or root, before)
        for suite in (suite for suite in suites if suite in labelled_suites(before)):
            tasks = labelled_tasks(suite, None if before > first else player)
            tasks = [task for task in tasks if task in chosen[suite]]
            paths += [folder / dataset_id(task, labelled) for task in tasks]
    return tuple(map(str, paths))


def emphasis(
    root: Path, number: int, *, player: str | None = None, first: int = 0
) -> dict[str, float]:
    """How much more of a task is drawn, by what the network's episodes of a round returned.

    These are episodes of training seeds. A task as good as its expert has 1, one as good as random
    play :data:`MOST_EMPHASIS`; an episode that was left after :data:`MOST_STEPS` steps counts as it
    is, see also :data:`SHORTENED`, and a task without references as one that is half as good.
    Arguments as in :func:`labelled_collections`.
    """
    factors = {}
    for suite in labelled_suites(number) if number or player is not None else ():
        references = measured(suite)
        for task in labelled_tasks(suite, None if number > first else player):
            name = dataset_id(task, RecordSettings(player=""))
            returns = returns_of(find_minari(labelled_folder(root, number) / name))
            known = references.get(task.id, TaskReferences())
            if suite in SHORTENED:
                recorded = returns_of(
                    find_minari(root / dataset_id(task)), most_steps=MOST_STEPS[suite]
                )
                known = shortened(known, float(recorded.mean()), SHORTENED[suite])
            scores = known.normalise(returns)
            score = 0.5 if scores is None else float(np.clip(scores.mean(), 0.0, 1.0))
            factors[task.id] = 1 + (MOST_EMPHASIS - 1) * (1 - score)
    return factors


def shortened(known: TaskReferences, expert: float, share: float) -> TaskReferences:
    """What the first steps of an episode are compared with.

    Args:
        known: References of whole episodes.
        expert: Mean return of as many steps of the expert.
        share: Of the random return that so many steps hold.
    """
    random = known.random and replace(known.random, mean=known.random.mean * share)
    reference = Reference(expert, None, None, None, "recorded episodes")
    return TaskReferences(random=random, expert=reference)
