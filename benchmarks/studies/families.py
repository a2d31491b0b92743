"""Gato's tokens and JAT's embeddings on the same episodes, in networks of as many parameters.

    python -m benchmarks.studies.families --minutes 30
    python -m benchmarks.studies.families --suites babyai metaworld --minutes 5 --episodes 10
    python -m benchmarks.studies.families --study recipe --variants gato-lean autoregressive

The second study changes one thing of gato-mini's recipe at a time. Each variant is trained for as
many minutes, or for as many updates where they cost as much, by the code of ``gato-gym train``, and
plays by that of ``gato-gym bench``. The episodes are those of :mod:`benchmarks.studies.gato_mini`;
where they are a network's own, it is the study's. The width of the feed-forward makes the numbers
of parameters equal. A variant that is finished is kept, so that the command can be stopped and run
again; the table is drawn from all that are there.

* :data:`STUDIES` -- what is compared, see :mod:`benchmarks.studies.variants`.
* :func:`label` -- collects episodes of the variant before, with the experts' labels.
* :func:`run_variant` -- trains one and plays with it.
* :func:`main` -- the command.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks.studies import gato_mini
from benchmarks.studies.plots import check_page, fill_page, write_csv
from benchmarks.studies.recipe_episodes import SUITES, evenly, labelled_collections
from benchmarks.studies.scoring import bench, shown, suite_means
from benchmarks.studies.variants import (
    LABELLED,
    LEAN,
    RECIPE_VARIANTS,
    VARIANTS,
    Variant,
    matched,
    settings_of,
)
from gato_gym import get_task
from gato_gym.commands.common import exit_status
from gato_gym.files.atomic_io import surviving, write_json
from gato_gym.files.bounded_io import read_json
from gato_gym.files.folder_lock import FolderLock
from gato_gym.terminal import new_console
from policies.base import batch_of_one
from policies.collection.collect import collect
from policies.gato.checkpoint_folder import RUN_CHECKPOINT
from policies.model.network import count_parameters
from policies.registry import make_policy
from policies.training.run import TrainRun, check_known
from policies.training.settings import TrainSettings

BATCHES = (1, 64)
FEW = 4
"""Variants that are columns of a table; more are rows."""

WEAKEST = 3
"""Tasks that a table names as those in which a variant is worst."""

RESULT = "result.json"
"""What a finished variant leaves in its folder."""

TIMED, WARMING = "mujoco-halfcheetah", 64
"""The task whose steps are timed, and steps before, after which a context is full."""


STUDIES = {
    "families": (VARIANTS, Path("docs/families.md")),
    "recipe": (RECIPE_VARIANTS, Path("docs/training.md")),
}
"""What is compared, and the page with the table, by the table's mark."""


def label(
    variant: Variant,
    known: Sequence[Variant],
    work: Path,
    *,
    suites: tuple[str, ...],
    most_tasks: int | None,
) -> None:
    """Let the variant that has one round less play, while the experts label, if there are rounds.

    Args:
        variant: What is to be trained.
        known: The study's variants.
        work: Folder of the study.
        suites: Whose tasks are played.
        most_tasks: Tasks of each suite, see :func:`~benchmarks.studies.recipe_episodes.evenly`.

    Raises:
        ValueError: The variant that plays is not trained.
    """
    if not variant.rounds:
        return
    player = next(each.name for each in known if each.rounds == variant.rounds - 1)
    _result(work, player, needed_by=variant)
    checkpoint = work / player / RUN_CHECKPOINT
    for tasks, plays in labelled_collections(work / LABELLED, variant.rounds, str(checkpoint)):
        chosen = [task for task in evenly(tasks, most_tasks) if task.suite in suites]
        if chosen:
            collect(chosen, plays, workers=os.cpu_count() or 1, console=new_console(soft_wrap=True))


def _result(work: Path, name: str, *, needed_by: Variant) -> dict[str, Any]:
    """What a finished variant left, of which another one is made.

    Raises:
        ValueError: It is not finished.
    """
    path = work / name / RESULT
    if not path.exists():
        raise ValueError(
            f"{needed_by.name} needs the finished {name}, and there is no {path}: train both, "
            f"--variants {name} {needed_by.name}"
        )
    result: dict[str, Any] = read_json(path)
    return result


def run_variant(variant: Variant, settings: TrainSettings, *, episodes: int) -> dict[str, Any]:
    """Train one network, and play with it.

    Args:
        variant: What is trained.
        settings: Its run, which is resumed where it has begun.
        episodes: Episodes of each task to play.

    Returns:
        Everything that the table is made of, as JSON values.
    """
    run = TrainRun(settings)
    checkpoint = run.train()
    config, tasks = run.config, [task.id for task in run.tasks]
    minutes = read_json(surviving(run.state / "last") / "progress.json")["minutes"]
    return {
        "variant": variant.name,
        "what": variant.what,
        "parameters": count_parameters(run.export(checkpoint)),
        "steps": config.steps,
        "tokens": config.steps * config.rows * config.length,
        "minutes": minutes,
        **{
            f"steps_a_second_{rows}": steps_a_second(checkpoint, tasks, rows, settings.device)
            for rows in BATCHES
        },
        **play(checkpoint, tasks, episodes, device=settings.device),
    }


def steps_a_second(
    checkpoint: Path, tasks: Sequence[str], rows: int, device: str, *, seconds: float = 5.0
) -> float:
    """Environment steps that ``predict`` chooses actions for in a second, in a full context.

    Args:
        checkpoint: Who acts.
        tasks: What it plays; :data:`TIMED` if that is among them, else the first is timed.
        rows: Environments of a batch.
        device: Where it computes.
        seconds: How long.
    """
    with closing(get_task(TIMED if TIMED in tasks else tasks[0]).make()) as env:
        observation, _ = env.reset(seed=0)
        policy = make_policy(checkpoint, env=env, device=device)
        batch = _repeated(batch_of_one(env.observation_space, observation), rows)
    state: Any = None
    for _ in range(WARMING):
        _, state = policy.predict(batch, state, deterministic=True)
    begun, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - begun) < seconds or not count:
        _, state = policy.predict(batch, state, deterministic=True)
        count += rows
    return count / spent


def _repeated(part: Any, rows: int) -> Any:
    """The first row of a batch of observations, so often."""
    if isinstance(part, dict):
        return {key: _repeated(each, rows) for key, each in part.items()}
    return part * rows if isinstance(part, tuple) else np.repeat(part, rows, 0)


def play(
    checkpoint: Path, tasks: Sequence[str], episodes: int, *, device: str = "auto"
) -> dict[str, Any]:
    """The summary of a benchmark's run of the checkpoint, which is resumed where it has begun."""
    summary = bench(
        checkpoint.parent / "scores",
        *("--suite", "all", "--tasks", ",".join(tasks), "--policy", str(checkpoint)),
        *("--episodes", str(episodes), "--device", device),
    )
    return {name: summary[name] for name in ("suites", "tasks")}


def line(result: Mapping[str, Any]) -> dict[str, Any]:
    """A variant's figures by column: of each suite the mean score with its 95 % interval."""
    names = ("variant", "what", "parameters", "steps", "tokens", "minutes")
    values = {name: result[name] for name in names}
    values |= {f"steps_a_second_{rows}": result[f"steps_a_second_{rows}"] for rows in BATCHES}
    values |= suite_means(result, SUITES)
    return {**values, "weakest": ", ".join(weakest(result["tasks"]))}


def weakest(tasks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The tasks of the lowest scores, from the lowest on."""
    scores = {name: task["normalised"] for name, task in tasks.items()}
    scored = [name for name, score in scores.items() if score is not None]
    return sorted(scored, key=lambda name: (scores[name], name))[:WEAKEST]


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """The lines as a table, a variant a column, or a row where there are more than a few."""
    columns: dict[str, list[str]] = {
        "parameters": [f"{v['parameters']:,}" for v in lines],
        "minutes of training": [f"{v['minutes']:.1f}" for v in lines],
        "tokens": [f"{v['tokens'] / 1e6:.1f}M" for v in lines],
        "updates": [f"{v['steps']:,}" for v in lines],
    }
    for suite in SUITES:
        if any(v[suite] is not None for v in lines):
            columns[suite] = [shown(v, suite) for v in lines]
    for batch in BATCHES:
        rates = [f"{v[f'steps_a_second_{batch}']:,.0f}" for v in lines]
        columns[f"steps a second, batch {batch}"] = rates
    columns["weakest tasks"] = [str(v["weakest"]) for v in lines]
    table = [["", *(str(v["what"]) for v in lines)]]
    table += [[name, *cells] for name, cells in columns.items()]
    if len(lines) > FEW:
        table = [list(row) for row in zip(*table, strict=True)]
    table.insert(1, ["---"] * len(table[0]))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def write_table(
    results: Sequence[Mapping[str, Any]], table: Path, page: Path, mark: str = "families"
) -> None:
    """Write the table as CSV, and into a page where its comments say.

    Raises:
        ValueError: The page has no such place.
    """
    lines = [line(result) for result in results]
    write_csv(table, lines)
    fill_page(page, mark, markdown(lines))


def main(
    *,
    study: Literal["families", "recipe"] = "families",
    variants: tuple[str, ...] = (),
    suites: tuple[str, ...] = SUITES,
    most_tasks: int | None = None,
    minutes: float = 30.0,
    rows: int = gato_mini.USUAL_ROWS,
    parameters: int = 5_500_000,
    episodes: int = 20,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    root: Path = Path("data"),
    work: Path = Path("runs/families"),
    csv: Path | None = None,
    page: Path | None = None,
) -> None:
    """Compare the families of networks, or what gato-mini's recipe is made of.

    Args:
        study: What is compared.
        variants: Names of the variants to train; by default all of the study.
        suites: Suites to train on and to play.
        most_tasks: Tasks of each suite, at equal distances in their order; by default all.
        minutes: Time for the updates of each; of the second study, those that cost as much as
            gato-lean's are as many.
        rows: Packed sequences of a batch of gato-lean, others' in proportion; a GPU takes more.
        parameters: Of each network whose size is not what it is named for.
        episodes: Episodes of each task to play.
        device: Where networks are trained and play.
        root: Folder of the datasets, see benchmarks.studies.gato_mini.
        work: Folder of the study.
        csv: File of the table; by default docs/STUDY.csv.
        page: File that shows the table; by default docs/families.md or docs/training.md.
    """
    known, usual_page = STUDIES[study]
    check_page(page or usual_page, study)
    by_name = {each.name: each for each in known if set(each.suites) <= set(suites)}
    check_known("variants", variants, list(by_name))
    check_known("suites", suites, SUITES)
    with FolderLock(work):
        for name in variants or by_name:
            path, variant = work / name / RESULT, by_name[name]
            if not path.exists():
                label(variant, known, work, suites=suites, most_tasks=most_tasks)
                lean = None if variant.timed else _result(work, LEAN.name, needed_by=variant)
                settings = settings_of(
                    variant,
                    root,
                    work,
                    suites=suites,
                    minutes=minutes,
                    steps=None if lean is None else lean["steps"],
                    most_tasks=most_tasks,
                    rows=rows,
                    device=device,
                )
                settings = matched(variant, settings, variant.parameters or parameters)
                write_json(path, run_variant(variant, settings, episodes=episodes))
    paths = [work / variant.name / RESULT for variant in known]
    results = [read_json(path) for path in paths if path.exists()]
    write_table(results, csv or Path(f"docs/{study}.csv"), page or usual_page, study)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(main)))
