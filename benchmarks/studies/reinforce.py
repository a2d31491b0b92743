"""Imitate, then reinforce: what PPO adds where imitation alone is weak.

    python -m benchmarks.studies.reinforce
    python -m benchmarks.studies.reinforce --cases babyai --seeds 1 --steps 30000

Each case is a task that a checkpoint plays badly, improved by the code of ``gato-gym reinforce``
from several seeds; other tasks of the same network are played before and after. A seed that is
finished is kept, so that the command can be stopped and run again.

* :data:`CASES` -- which tasks, from which weights.
* :func:`demonstrated` -- a network that one demonstration was shown.
* :func:`rows_of` -- the table, from the reports.
* :func:`main` -- the command.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.references import measured
from benchmarks.studies.plots import check_page, fill_page, write_csv
from gato_gym.commands.common import exit_status
from gato_gym.files.bounded_io import read_json
from gato_gym.files.folder_lock import FolderLock
from gato_gym.tasks import get_task
from gato_gym.terminal import new_console
from policies.collection.record import record_episodes
from policies.collection.scores import interval
from policies.registry import make_policy
from policies.sb3 import reinforce
from policies.sb3.settings import ReinforceSettings
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings

GATO_MINI, MARK = "gato-mini", "reinforce"


@dataclass(frozen=True)
class Case:
    """A task where imitation is weak.

    Attributes:
        task: Its id.
        what: In words.
        steps: Timesteps of PPO.
        checks: Other tasks of the network, which are played before and after.
        changes: Fields of :class:`~policies.sb3.settings.ReinforceSettings`.
        demonstrated: Whether the network is a small one that was shown one demonstration.
    """

    task: str
    what: str
    steps: int
    checks: tuple[str, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)
    demonstrated: bool = False


CASES = {
    "babyai": Case(
        "babyai-mini-boss-level", "gato-mini", 120_000,
        ("babyai-go-to-local", "babyai-boss-level", "metaworld-reach", "mujoco-hopper"),
        {"timesteps": 8, "epochs": 2, "rate": 1e-4},
    ),
    "metaworld": Case(
        "metaworld-stick-push", "gato-mini", 120_000,
        ("metaworld-reach", "metaworld-push", "babyai-go-to-local", "mujoco-hopper"),
        {"rollout": 250, "batch_size": 500},
    ),
    "mujoco": Case(
        "mujoco-hopper", "one demonstration", 120_000,
        changes={"rollout": 256, "batch_size": 512, "epochs": 10, "rate": 2e-5},
        demonstrated=True,
    ),
}  # fmt: skip
"""Which tasks, from which weights, by name."""


def demonstrated(task: str, folder: Path, *, seed: int, steps: int = 400) -> Path:
    """A small network trained on one episode of the task's expert: its run's folder.

    Args:
        task: Id of the task.
        folder: Where the episode and the run are.
        seed: Seed of the episode and of the training.
        steps: Updates.
    """
    name = f"one/{task}-{seed}-v0"
    if not (folder / "data" / name).exists():
        with closing(get_task(task).make()) as env:
            expert = make_policy("expert", env=env)
            record_episodes(env, expert, 1, name, root=folder / "data", seed=seed, environment=task)
    settings = TrainSettings(
        datasets=(str(folder / "data" / name),),
        output=folder / f"{task}-{seed}",
        preset="tiny",
        options={"actions": "parallel"},
        steps=steps,
        prompt_share=0.0,
        score_every=0,
        seed=seed,
    )
    TrainRun(settings).train()
    return settings.output


def settings_of(
    case: Case, seed: int, *, work: Path, name: str, datasets: tuple[str, ...], episodes: int
) -> ReinforceSettings:
    """What a case is reinforced with.

    Args:
        case: The case.
        seed: Seed of PPO, and of the demonstration.
        work: Folder of the study.
        name: Name of the case.
        datasets: Episodes to imitate beside, where the network is gato-mini.
        episodes: Episodes of each task, played before and after.
    """
    source = GATO_MINI
    if case.demonstrated:
        source = str(demonstrated(case.task, work / "demonstrated", seed=seed))
        datasets = (str(work / "demonstrated" / "data" / f"one/{case.task}-{seed}-v0"),)
    settings = ReinforceSettings(
        source,
        case.task,
        work / f"{name}-{seed}",
        case.steps,
        datasets=datasets,
        check_tasks=case.checks,
        episodes=episodes,
        seed=seed,
    )
    return replace(settings, **case.changes)


def score_of(task: str, returns: Sequence[float]) -> float | None:
    """The normalised mean of returns; None for a task without references."""
    references = measured(get_task(task).suite)
    if task not in references:
        return None
    scores = references[task].normalise(np.asarray(returns))
    return None if scores is None else float(np.mean(scores))


def rows_of(reports: Mapping[tuple[str, int], Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each case, from the reports by case and seed.

    It has the mean return, the mean normalised score and the success rate before and after, the
    95 % interval over several seeds of the score's gain, and the most that another task's score
    fell, a mean over seeds.
    """
    rows = []
    for name in sorted({name for name, _ in reports}):
        mine = [report for (case, _), report in sorted(reports.items()) if case == name]
        task = str(mine[0]["task"])
        row: dict[str, Any] = {"case": name, "task": task, "seeds": len(mine)}
        scores: dict[str, list[float | None]] = {}
        for when in ("before", "after"):
            returns = [report["tasks"][task][when]["returns"] for report in mine]
            row[when] = float(np.mean([np.mean(each) for each in returns]))
            scores[when] = [score_of(task, each) for each in returns]
            known = [score for score in scores[when] if score is not None]
            row[f"score_{when}"] = float(np.mean(known)) if known else None
            ended = [report["tasks"][task][when]["successes"] for report in mine]
            reached = [np.mean(each) for each in ended if each is not None]
            row[f"success_{when}"] = float(np.mean(reached)) if reached else None
        gains = [
            after - before
            for before, after in zip(scores["before"], scores["after"], strict=True)
            if before is not None and after is not None
        ]
        several = len(gains) > 1
        row["low"], row["high"] = (
            interval([[gain] for gain in gains], redraw_groups=True) if several else (None, None)
        )
        falls = [fall for report in mine if (fall := largest_fall(report)) is not None]
        row["lost"] = float(np.mean(falls)) if falls else None
        row["steps"] = int(np.mean([report["steps"] for report in mine]))
        row["minutes"] = float(np.mean([report["minutes"] for report in mine]))
        rows.append(row)
    return rows


def largest_fall(report: Mapping[str, Any]) -> float | None:
    """The most that the normalised score of another task of a report fell; None without any."""
    falls = []
    for task, scores in report["tasks"].items():
        before, after = (score_of(task, scores[when]["returns"]) for when in ("before", "after"))
        if task != report["task"] and before is not None and after is not None:
            falls.append(before - after)
    return max(falls, default=None)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table."""
    lines = [
        "| task | seeds | return before | after | score before | after | gain, 95 % | "
        "success before | after | others lost | steps | minutes |",
        "|---" * 12 + "|",
    ]

    def cell(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    def gained(row: Mapping[str, Any]) -> str:
        return "-" if row["low"] is None else f"{cell(row['low'])} to {cell(row['high'])}"

    lines += [
        f"| {row['task']} | {row['seeds']} | {row['before']:.2f} | {row['after']:.2f} | "
        f"{cell(row['score_before'])} | {cell(row['score_after'])} | "
        f"{gained(row)} | {cell(row['success_before'])} | "
        f"{cell(row['success_after'])} | {cell(row['lost'])} | {row['steps']:,} | "
        f"{row['minutes']:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main(
    *,
    cases: tuple[str, ...] = tuple(CASES),
    seeds: int = 3,
    steps: int | None = None,
    episodes: int = 50,
    datasets: tuple[str, ...] = (),
    work: Path = Path("runs/reinforce"),
    page: Path = Path("docs/guides/reinforce.md"),
) -> None:
    """Reinforce tasks where imitation is weak.

    Args:
        cases: Names of the cases.
        seeds: Seeds 0 to ``seeds - 1``.
        steps: Timesteps of PPO; None is the case's.
        episodes: Episodes of each task that are played before and after.
        datasets: Ids or paths of Minari datasets that gato-mini keeps imitating.
        work: Folder of the study; its table.csv has the result.
        page: File that shows it.
    """
    check_page(page, MARK)
    if unknown := sorted(set(cases) - set(CASES)):
        raise ValueError(f"cases names {unknown}: expected some of {list(CASES)}")
    console = new_console(soft_wrap=True)
    with FolderLock(work):
        for seed in range(seeds):
            for name in cases:
                if (work / f"{name}-{seed}" / "report.json").exists():
                    continue
                case = CASES[name] if steps is None else replace(CASES[name], steps=steps)
                settings = settings_of(
                    case, seed, work=work, name=name, datasets=datasets, episodes=episodes
                )
                reinforce(settings, console=console)
        paths = {
            (name, s): work / f"{name}-{s}" / "report.json" for name in CASES for s in range(seeds)
        }
        rows = rows_of({key: read_json(path) for key, path in paths.items() if path.exists()})
        write_csv(work / "table.csv", rows)
        fill_page(page, MARK, markdown(rows))
        console.print(markdown(rows), highlight=False, markup=False)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(main)))
