"""What a policy's scores owe to chance, and what they survive: other evaluation seeds, greedy
actions, delayed actions and noisy observations.

    python -m benchmarks.studies.robustness
    python -m benchmarks.studies.robustness --policy runs/mine --tasks 'mujoco-*' --episodes 50

Each condition is a run of ``benchmarks.run`` in a folder of its own, scored by the references of
the standard protocol. Stopped at any moment, the same command resumes.

* :data:`TASKS` -- what is played by default.
* :func:`conditions` -- under what.
* :func:`apart` -- which intervals do not overlap.
* :func:`main` -- the command.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.table import Table

from benchmarks.policies import DEFAULT_POLICY
from benchmarks.protocol import PROTOCOLS, STANDARD
from benchmarks.studies.plots import check_page, fill_page, write_csv
from benchmarks.studies.scoring import bench, shown, suite_means
from gato_gym.commands.common import exit_status
from gato_gym.tasks import Task, list_tasks
from gato_gym.terminal import new_console
from policies.rollout.disturbances import number_boxes

MARK = "robustness"

TASKS = (
    "atari-breakout", "atari-freeway", "atari-hero", "atari-qbert", "atari-riverraid",
    "atari-roadrunner",
    "babyai-go-to-local", "babyai-open-doors-order-n4", "babyai-pickup-loc",
    "babyai-put-next-local", "babyai-synth-loc", "babyai-unlock-local",
    "dm_control-ball_in_cup-catch", "dm_control-cartpole-swingup", "dm_control-cheetah-run",
    "dm_control-finger-turn_easy", "dm_control-reacher-hard", "dm_control-walker-walk",
    "metaworld-button-press-topdown", "metaworld-door-open", "metaworld-peg-insert-side",
    "metaworld-pick-place", "metaworld-push", "metaworld-stick-push",
    "mujoco-doublependulum", "mujoco-halfcheetah", "mujoco-hopper", "mujoco-pusher",
    "mujoco-reacher", "mujoco-walker",
)  # fmt: skip
"""Six tasks of each suite: different ones, among those whose episodes are short."""


@dataclass(frozen=True)
class Condition:
    """How a run differs from the others.

    Attributes:
        name: Of its folder and its line.
        what: In words.
        seed: Chooses the episodes, and what the policy draws.
        greedy: The policy's most likely actions instead of samples.
        protocol: A name of :data:`benchmarks.protocol.PROTOCOLS`.
    """

    name: str
    what: str
    seed: int = 0
    greedy: bool = False
    protocol: str = STANDARD

    @property
    def is_seed(self) -> bool:
        """Whether it differs from the first in its seed alone."""
        return not self.greedy and self.protocol == STANDARD


def conditions(seeds: int) -> tuple[Condition, ...]:
    """Sampled actions with several seeds; what else there is has the first seed's episodes."""
    return (
        *(Condition(f"seed-{k}", f"sampled, seed {k}", seed=k) for k in range(seeds)),
        Condition("greedy", "greedy", greedy=True),
        Condition("delayed", "actions one step late", protocol="delayed-actions"),
        Condition("noisy", "noise of 1 % on observations", protocol="noisy-observations"),
    )


def played_under(condition: Condition, tasks: Sequence[Task]) -> list[Task]:
    """The tasks to which a condition makes a difference: noise makes none to symbols and texts."""
    if not PROTOCOLS[condition.protocol].observation_noise:
        return list(tasks)
    return [task for task in tasks if _has_numbers(task)]


def _has_numbers(task: Task) -> bool:
    with closing(task.make()) as env:
        return bool(number_boxes(env.observation_space, task.options.grids))


def apart(
    lines: Sequence[Mapping[str, Any]], suites: Sequence[str], pairs: Sequence[tuple[str, str]]
) -> list[tuple[str, str, str]]:
    """Suite and names of each pair of conditions whose intervals do not overlap.

    Args:
        lines: The table's, each with a ``condition`` and what :func:`suite_means` gives.
        suites: Names of the suites.
        pairs: Names of conditions; those without intervals do not count.
    """
    by_name = {line["condition"]: line for line in lines}
    disjoint = []
    for suite in suites:
        for one, other in pairs:
            lows, highs = (
                [by_name[name][f"{suite}_{end}"] for name in (one, other)]
                for end in ("low", "high")
            )
            if None not in lows and max(lows) > min(highs):
                disjoint.append((suite, one, other))
    return disjoint


def cells(lines: Sequence[Mapping[str, Any]], suites: Sequence[str]) -> list[list[str]]:
    """The table's head and rows as text."""
    rows = [[str(line["what"]), *(shown(line, suite) for suite in suites)] for line in lines]
    return [["condition", *suites], *rows]


def verdicts(
    lines: Sequence[Mapping[str, Any]], suites: Sequence[str], played: Sequence[Condition]
) -> list[str]:
    """Sentences: which seeds disagree, and which conditions differ from the first seed's run."""
    if not any(line[f"{suite}_low"] is not None for line in lines for suite in suites):
        return ["There are no intervals: each task needs five episodes or more."]
    seeds = [each.name for each in played if each.is_seed]
    others = [each.name for each in played if not each.is_seed]
    return [
        _verdict("two seeds", apart(lines, suites, list(combinations(seeds, 2)))),
        _verdict(
            f"{seeds[0]} and another condition",
            apart(lines, suites, [(seeds[0], name) for name in others]),
        ),
    ]


def _verdict(of: str, disjoint: Sequence[tuple[str, str, str]]) -> str:
    listed = "; ".join(f"{suite}: {one} and {other}" for suite, one, other in disjoint)
    return f"Pairs of {of} whose 95 % intervals do not overlap: {listed or 'none'}."


def main(
    *,
    policy: str = DEFAULT_POLICY,
    tasks: str | None = None,
    episodes: int = 20,
    seeds: int = 5,
    workers: int | None = None,
    num_envs: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    work: Path = Path("results/robustness"),
    csv: Path = Path("docs/robustness.csv"),
    page: Path = Path("docs/robustness.md"),
) -> None:
    """Measure what a policy's scores owe to chance, and what they survive.

    Args:
        policy: Who plays, as in benchmarks.run.
        tasks: Patterns of tasks, separated by commas; by default six of each suite.
        episodes: Episodes of each task and condition.
        seeds: Evaluation seeds, 0 and up.
        workers: Processes, as in benchmarks.run.
        num_envs: Environments that a process plays at a time.
        device: Where a network computes.
        work: Folder of the runs, one for each condition.
        csv: File of the table.
        page: File that shows the table.
    """
    check_page(page, MARK)
    if seeds < 1:
        raise ValueError(f"--seeds is {seeds}, expected 1 or more: pass --seeds 5")
    chosen = list_tasks(None, tasks or ",".join(TASKS))
    suites = sorted({task.suite for task in chosen})
    numbers = {"--workers": workers, "--num-envs": num_envs}
    shared = ["--policy", policy, "--episodes", str(episodes), "--device", device]
    shared += [part for flag, n in numbers.items() if n is not None for part in (flag, str(n))]
    played, lines = [], []
    for condition in conditions(seeds):
        names = [task.id for task in played_under(condition, chosen)]
        if not names:
            continue
        flags = ["--suite", "all", "--tasks", ",".join(names), "--seed", str(condition.seed)]
        flags += ["--protocol", condition.protocol]
        flags.append("--deterministic" if condition.greedy else "--sample")
        summary = bench(work / condition.name, *shared, *flags)
        line: dict[str, Any] = {
            "condition": condition.name,
            "what": condition.what,
            "policy": policy,
        }
        line |= {"tasks": len(summary["tasks"]), "episodes": episodes}
        lines.append({**line, **suite_means(summary, suites)})
        played.append(condition)
    _write(lines, suites, played, names=[task.id for task in chosen], csv=csv, page=page)


def _write(
    lines: Sequence[Mapping[str, Any]],
    suites: Sequence[str],
    played: Sequence[Condition],
    *,
    names: Sequence[str],
    csv: Path,
    page: Path,
) -> None:
    """The table as CSV, in the page and on the terminal."""
    head, *rows = cells(lines, suites)
    said = verdicts(lines, suites, played)
    table = Table(*head, title=f"{lines[0]['policy']}, normalised mean", title_justify="left")
    for row in rows:
        table.add_row(*row)
    console = new_console()
    console.print(table)
    for sentence in said:
        console.print(sentence, highlight=False, soft_wrap=True)
    write_csv(csv, lines)
    marks = [["---"] * len(head)]
    text = "\n".join(f"| {' | '.join(row)} |" for row in [head, *marks, *rows])
    who = f"`{lines[0]['policy']}`, {lines[0]['episodes']} episodes of each task."
    listed = f"Tasks: {', '.join(f'`{name}`' for name in names)}."
    fill_page(page, MARK, "\n\n".join([who, text, *said, listed]))


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(main)))
