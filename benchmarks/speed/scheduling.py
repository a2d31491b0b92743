"""How much of a benchmark run's time is play.

* :func:`overhead` -- the wall time of a run over what its work takes when every row is busy.
* :func:`speedup` -- two processes over one.

The work is what is measured while episodes are played: environments, tokenising, and of
``predict`` the share of the rows in play. It is a lower bound for one process: no row is idle, and
nothing else is done. Loading the policy, which a longer run has no more of, is left out of both.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing

from benchmarks.policies import PolicyChoice
from benchmarks.protocol import Protocol
from benchmarks.settings import acting
from benchmarks.speed.comparison import Comparison
from benchmarks.workers.processes import play_episodes
from benchmarks.workers.scheduler import longest_first
from policies.rollout.outcomes import EpisodeKey
from policies.rollout.timing import TimeSpent

Pending = Mapping[str, Sequence[EpisodeKey]]


def overhead(
    policy: str, suite: str, tasks: str | None, *, episodes: int = 20, rounds: int = 3
) -> Comparison:
    """The wall time of a run in one process, over the work in it.

    Args:
        policy: Who plays.
        suite: Suite name.
        tasks: Which of its tasks; None for all.
        episodes: Episodes of each task.
        rounds: How many ratios the median is of.

    Returns:
        Rates are episodes a second, as played and as they could be at most.
    """
    pending, choice = _episodes(suite, tasks, episodes), _choice(policy)
    total = sum(map(len, pending.values()))
    rates = []
    for _ in range(rounds):
        wall, spent = _played(pending, choice, workers=1)
        work = spent.environments + spent.tokenising + spent.inference
        rates.append((total / (wall - spent.loading), total / work))
    name = f"play {len(pending)} tasks of {suite} with {policy}, {episodes} episodes each"
    return Comparison.of(name, "as played", "every row busy", rates, "at most 1.25")


def speedup(
    policy: str, suite: str, tasks: str | None, *, episodes: int = 20, rounds: int = 3
) -> Comparison:
    """One process and two, in turns; starting them is part of it. Arguments as in :func:`overhead`.

    Returns:
        Rates are episodes a second.
    """
    pending, choice = _episodes(suite, tasks, episodes), _choice(policy)
    total = sum(map(len, pending.values()))
    rates = []
    for turn in range(rounds):
        order = (1, 2) if turn % 2 == 0 else (2, 1)
        walls = {workers: _played(pending, choice, workers=workers)[0] for workers in order}
        rates.append((total / walls[1], total / walls[2]))
    name = f"share {len(pending)} tasks of {suite} with {policy}, {episodes} episodes each"
    return Comparison.of(name, "one process", "two processes", rates, "at least 1.7")


def _choice(policy: str) -> PolicyChoice:
    return PolicyChoice(policy, deterministic=acting(policy, None), device="cpu")


def _episodes(suite: str, tasks: str | None, count: int) -> Pending:
    """A run's episodes, the tasks in the order of a run."""
    from gato_gym.tasks import list_tasks

    chosen = longest_first(list_tasks(suite, tasks))
    protocol = Protocol.of_tasks(chosen, episodes=count, seed=0)
    return {task.id: protocol.episodes_of(task.id) for task in chosen}


def _played(pending: Pending, choice: PolicyChoice, *, workers: int) -> tuple[float, TimeSpent]:
    """Seconds of a run, and what its processes spent."""
    started, spent = time.perf_counter(), TimeSpent()
    with closing(play_episodes(pending, choice, workers=workers)) as reports:
        for report in reports:
            if isinstance(report, TimeSpent):
                spent += report
    return time.perf_counter() - started, spent
