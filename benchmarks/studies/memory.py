"""What later timesteps should see of a finished one: ``python -m benchmarks.studies.memory``.

Trains small networks on the same episodes of :data:`benchmarks.studies.memory_tasks.TASKS` with
each memory, by the code of ``gato-gym train``, and plays the same episodes with each. Networks of a
task have as many updates on as many tokens, which cost the same. A network that is finished is
kept, so that the command can be stopped and run again; the table is drawn from all that are there.

* :data:`VARIANTS` -- what is compared.
* :func:`run_unit` -- records a task, trains one network and plays with it.
* :func:`main` -- the command.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

import gato_gym
from benchmarks.studies.memory_tasks import TASKS, Scripted, SmallTask
from benchmarks.studies.plots import check_page, fill_page, write_csv
from gato_gym.commands.common import exit_status
from gato_gym.files.atomic_io import write_json
from gato_gym.files.bounded_io import read_json, read_text
from gato_gym.files.folder_lock import FolderLock
from policies.collection.record import record_episodes
from policies.collection.scores import interval, play_scores
from policies.registry import make_policy
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings

MARK = "memory"
NAMES = tuple(each.name for each in TASKS)
VARIANTS = ("none", "observations", "all")
EPISODES, MOST_STEPS = 60, 4_000
"""Recorded episodes of a task, fewer where so many steps are reached."""


def recorded(task: SmallTask, work: Path) -> Path:
    """The folder of a task's dataset, which is recorded where it is not there."""
    name, root = f"memory/{task.name}-v0", work / "data"
    if not (root / name).exists():
        env = gato_gym.make(task.env_id)
        longest = env.spec.max_episode_steps if env.spec else None
        count = min(EPISODES, max(12, MOST_STEPS // (longest or MOST_STEPS)))
        record_episodes(env, Scripted(env, task.rule), count, name, root=root)
        env.close()
    return root / name


def settings_of(
    task: SmallTask, memory: str, seed: int, work: Path, *, steps: int
) -> TrainSettings:
    """What a network is trained with."""
    return TrainSettings(
        datasets=(str(recorded(task, work)),),
        output=work / task.name / f"{memory}-seed-{seed}",
        shards=work / "shards" / f"{task.name}-{memory}",
        preset="0.4m",
        steps=steps,
        memory=memory,
        rows=8,
        length=128,
        prompt_share=0.0,
        seed=seed,
        device="cpu",
        score_every=0,
    )


def returns(task: SmallTask, policy: str | Path, episodes: int) -> list[float]:
    """Returns of the same episodes of a task: of a checkpoint, "random" or "expert"."""
    envs = [gato_gym.make(task.env_id) for _ in range(1 if policy == "expert" else episodes)]
    player: Any = Scripted(envs[0], task.rule)
    if policy != "expert":
        player = make_policy(policy, env=envs[0])
    scores = play_scores(envs, player, episodes, deterministic=True)
    for env in envs:
        env.close()
    return list(scores.returns)


def run_unit(
    task: SmallTask, memory: str, seed: int, work: Path, *, steps: int, episodes: int
) -> dict[str, Any]:
    """Train one network, and play with it.

    Args:
        task: What it is trained on.
        memory: What later timesteps see.
        seed: Seed of weights and batches.
        work: Folder of the study; a run that has begun there is resumed.
        steps: Updates.
        episodes: Episodes to play.

    Returns:
        What the table is made of, as JSON values.
    """
    run = TrainRun(settings_of(task, memory, seed, work, steps=steps))
    checkpoint = run.train()
    loss = float(read_last(run.state / "metrics.csv")["loss"])
    return {
        "task": task.name, "memory": memory, "seed": seed, "steps": steps, "loss": loss,
        "returns": returns(task, checkpoint, episodes),
    }  # fmt: skip


def read_last(path: Path) -> dict[str, str]:
    """The last row of a table."""
    names, *_, last = read_text(path).splitlines()
    return dict(zip(names.split(","), last.split(","), strict=True))


def lines(
    results: Sequence[Mapping[str, Any]], bounds: Mapping[str, Mapping[str, Sequence[float]]]
) -> list[dict[str, Any]]:
    """A line for each task and memory: the score with its 95 % interval.

    A score is 0 for random play and 1 for the expert; seeds are redrawn, and episodes in them.

    Args:
        results: Of :func:`run_unit`.
        bounds: Returns of "random" and "expert", by task.
    """
    rows = []
    for task in TASKS:
        for memory in VARIANTS:
            units = [r for r in results if (r["task"], r["memory"]) == (task.name, memory)]
            if not units:
                continue
            low, high = (float(np.mean(bounds[task.name][name])) for name in ("random", "expert"))
            scores = [(np.asarray(unit["returns"]) - low) / (high - low) for unit in units]
            first, last = interval(scores, redraw_groups=len(scores) > 1)
            rows.append(
                {
                    "task": task.name, "what": task.what, "needs": task.needs, "memory": memory,
                    "seeds": len(units), "steps": units[0]["steps"],
                    "score": float(np.mean([np.mean(score) for score in scores])),
                    "low": first, "high": last,
                    "loss": float(np.mean([unit["loss"] for unit in units])),
                }
            )  # fmt: skip
    return rows


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The lines as a table, a task a row."""
    columns = [memory for memory in VARIANTS if any(row["memory"] == memory for row in rows)]
    titles = [f"`{memory}`" for memory in columns]
    table = [["task", "observation", "needs", *titles], ["---"] * (3 + len(columns))]
    for task in TASKS:
        cells = {row["memory"]: row for row in rows if row["task"] == task.name}
        if cells:
            shown = [_cell(cells[m]) if m in cells else "-" for m in columns]
            table.append([task.name, task.what, task.needs, *shown])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def _cell(row: Mapping[str, Any]) -> str:
    return f"{row['score']:.2f} ({row['low']:.2f} to {row['high']:.2f})"


def main(
    *,
    tasks: tuple[str, ...] = NAMES,
    memories: tuple[str, ...] = VARIANTS,
    seeds: int = 2,
    steps: int = 200,
    episodes: int = 20,
    work: Path = Path("runs/memory"),
    csv: Path = Path("docs/memory.csv"),
    page: Path = Path("docs/memory.md"),
) -> None:
    """Compare what later timesteps may see, on small tasks of all kinds.

    Args:
        tasks: Names of the tasks.
        memories: What is compared.
        seeds: Trainings of each: seeds 0 to ``seeds - 1``.
        steps: Updates of each training.
        episodes: Episodes that each network plays.
        work: Folder of the study.
        csv: File of the table.
        page: File that shows the table.
    """
    check_page(page, MARK)
    torch.set_num_threads(1)
    by_name = {task.name: task for task in TASKS}
    for setting, names, known in (
        ("tasks", tasks, NAMES),
        ("memories", memories, VARIANTS),
    ):
        if unknown := sorted(set(names) - set(known)):
            raise ValueError(f"{setting} names {unknown}: expected some of {list(known)}")
    with FolderLock(work):
        for seed in range(seeds):
            for name in tasks:
                for memory in memories:
                    path = work / name / f"{memory}-seed-{seed}" / "result.json"
                    if not path.exists():
                        result = run_unit(
                            by_name[name], memory, seed, work, steps=steps, episodes=episodes
                        )
                        write_json(path, result)
                        mean = np.mean(result["returns"])
                        print(f"{name}, {memory}, seed {seed}: {mean:.2f}", flush=True)
    results = [read_json(path) for path in sorted(work.glob("*/*/result.json"))]
    rows = lines(results, {name: _bounds(by_name[name], work) for name in _names(results)})
    write_csv(csv, rows)
    fill_page(page, MARK, markdown(rows))


def _names(results: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({result["task"] for result in results})


def _bounds(task: SmallTask, work: Path, episodes: int = 50) -> dict[str, list[float]]:
    """Returns of random play and of the expert, kept in the study's folder."""
    path = work / task.name / "bounds.json"
    if not path.exists():
        write_json(path, {name: returns(task, name, episodes) for name in ("random", "expert")})
    return dict(read_json(path))


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(main)))
