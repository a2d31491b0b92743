"""Learning from episodes of any quality: datasets x environments x methods, in one table.

    python -m benchmarks.studies.offline
    python -m benchmarks.studies.offline --environments hopper --datasets medium \\
        --methods bc gato dt --seeds 1 --minutes 3

Three datasets of each environment: *expert*, of the package's expert; *medium*, of a policy whose
training was stopped at a third of the expert's return; *mixed*, of all policies of that training, a
part of each stage. Each method is trained on each by the code of ``gato-gym train``, for as many
minutes, and plays episodes that nothing was trained on. Scores are 100 (x - random) / (expert -
random), as D4RL's are (arXiv 2004.07219), with the random and the expert of this harness.

:mod:`benchmarks.studies.offline_datasets` makes the datasets. Every stage has a folder, and what is
finished is kept: the command can be stopped and run again, with more environments, datasets,
methods or seeds, but with the same amounts. What was published for D4RL's own datasets is in a
table of its own, beside.

* :data:`METHODS` -- what is compared.
* :func:`run_method` -- trains one method, and plays.
* :func:`main` -- the command.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.statistics.bootstrap import FEWEST
from benchmarks.studies.offline_datasets import (
    DATASETS,
    ENVIRONMENTS,
    Plan,
    dataset_score,
    made_env,
    make_datasets,
    references_of,
)
from benchmarks.studies.plots import check_page, fill_page, write_csv
from gato_gym.commands.common import exit_status
from gato_gym.files.atomic_io import surviving, write_json
from gato_gym.files.bounded_io import read_json
from gato_gym.files.folder_lock import FolderLock
from policies.collection.scores import interval, play_scores
from policies.model.network import count_parameters
from policies.registry import make_policy
from policies.training.config import record_identity
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings

MARK, MARK_PUBLISHED = "offline", "offline-published"

ROWS = 8
"""Episodes that are played at a time."""

_NUMBERS: dict[str, Any] = {
    "options": {"actions": "parallel"}, "network": {"continuous_head": "regression"},
}  # fmt: skip

METHODS: dict[str, dict[str, Any]] = {
    "bc": {**_NUMBERS, "memory": "none", "keep": 0.0},
    "gato": {**_NUMBERS, "keep": 0.8},
    "gato-return": {**_NUMBERS, "return_conditioned": True},
    "dt": {"family": "dt"},
    "tt": {"family": "tt", "rows": 16},
    "jat": {"family": "jat", "keep": 0.8},
}
"""Fields of :class:`~policies.training.settings.TrainSettings` by method. Behaviour cloning (bc)
acts on each timestep alone and learns from all episodes; Gato and JAT imitate those that have four
fifths of the best window's return, as published; the others learn from all. All but tt predict the
numbers of an action at once, by regression, as gato-mini does; tt has a quarter of its usual rows,
and so more updates in the same minutes."""

PUBLISHED = {
    ("medium", "halfcheetah"): {"dt": 42.6, "tt": 46.9},
    ("medium", "hopper"): {"dt": 67.6, "tt": 61.1},
    ("medium", "walker2d"): {"dt": 74.0, "tt": 79.0},
    ("medium-replay", "halfcheetah"): {"dt": 36.6, "tt": 41.9},
    ("medium-replay", "hopper"): {"dt": 82.7, "tt": 91.5},
    ("medium-replay", "walker2d"): {"dt": 66.6, "tt": 82.6},
}
"""Mean normalised scores on D4RL's datasets (version 2), by dataset and environment: those of the
Decision and the Trajectory Transformer in ``plotting/scores.py`` of jannerm/trajectory-transformer,
the code of arXiv 2106.02039."""


def settings_of(
    method: str, datasets: Sequence[Path], output: Path, plan: Plan, *, seed: int
) -> TrainSettings:
    """What a method is trained with.

    Args:
        method: One of :data:`METHODS`.
        datasets: Folders.
        output: Folder of the run.
        plan: How much.
        seed: Of weights and batches.
    """
    base = TrainSettings(
        datasets=tuple(map(str, datasets)),
        output=output,
        preset=plan.preset,
        steps=plan.steps,
        minutes=None if plan.steps is not None else plan.minutes,
        precision="auto",
        seed=seed,
        score_every=0,
        shards=output.parent / "shards" / method,
    )
    changes = dict(METHODS[method])
    if changes.get("family", "gato") == "gato":
        changes["prompt_share"] = 0.0
    return dataclasses.replace(base, **changes)


def run_method(settings: TrainSettings, task: str, *, episodes: int) -> dict[str, Any] | None:
    """Train one network, and play with it.

    Args:
        settings: Its run, which is resumed where it has begun.
        task: The task's id.
        episodes: Episodes to play.

    Returns:
        Everything that the table is made of, as JSON values; None for a task that the method does
        not play.
    """
    try:
        run = TrainRun(settings)
    except ValueError as error:
        if settings.family == "tt" and "takes a Box of numbers" in str(error):
            return None
        raise
    checkpoint = run.train()
    progress = read_json(surviving(run.state / "last") / "progress.json")
    with ExitStack() as stack:
        envs = [stack.enter_context(made_env(task)) for _ in range(min(ROWS, episodes))]
        policy = make_policy(checkpoint, env=envs[0])
        returns = play_scores(envs, policy, episodes, deterministic=True).returns
    scores = references_of(task).normalise(returns)
    if scores is None:
        raise ValueError(f"{task} has an expert that does not beat random: nothing to score")
    return {
        "returns": list(returns),
        "scores": (100 * scores).tolist(),
        "parameters": count_parameters(run.export(checkpoint)),
        "steps": run.config.steps,
        "minutes": progress["minutes"],
    }


def line(
    dataset: str, environment: str, method: str, results: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A row of the table, of the results of all seeds; the interval redraws seeds and episodes."""
    groups = [result["scores"] for result in results]
    low = high = None
    if len(groups) > 1 and min(map(len, groups)) >= FEWEST:
        low, high = interval(groups, redraw_groups=True)
    first = results[0]
    return {
        "dataset": dataset,
        "environment": environment,
        "method": method,
        "score": float(np.mean([np.mean(group) for group in groups])),
        "low": low,
        "high": high,
        "seeds": len(groups),
        "episodes": min(map(len, groups)),
        "parameters": first["parameters"],
        "updates": first["steps"],
        "minutes": float(np.mean([result["minutes"] for result in results])),
        "dataset_score": first["dataset_score"],
    }


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """The lines as a table: a dataset of an environment a row, a method a column."""
    methods = [name for name in METHODS if any(each["method"] == name for each in lines)]
    head = ["dataset", "environment", "its episodes", *methods]
    table = [head, ["---"] * len(head)]
    cells = {(each["dataset"], each["environment"], each["method"]): each for each in lines}
    for dataset, environment in dict.fromkeys((key[0], key[1]) for key in cells):
        row = [cells.get((dataset, environment, method)) for method in methods]
        score = next(each["dataset_score"] for each in row if each is not None)
        table.append([dataset, environment, f"{score:.1f}", *map(_cell, row)])
    for name, form in (("parameters", "{:,.0f}"), ("minutes", "{:.1f}"), ("seeds", "{:.0f}")):
        means = [
            float(np.mean([each[name] for each in lines if each["method"] == method]))
            for method in methods
        ]
        table.append([name, "", "", *map(form.format, means)])
    return "\n".join(f"| {' | '.join(row)} |" for row in table)


def _cell(each: Mapping[str, Any] | None) -> str:
    if each is None:
        return "–"
    ends = "" if each["low"] is None else f" ({each['low']:.1f} to {each['high']:.1f})"
    return f"{each['score']:.1f}{ends}"


def published_markdown() -> str:
    """What was published for D4RL's own datasets, as a table."""
    methods = ("dt", "tt")
    rows = [["dataset of D4RL", "environment", *methods], ["---"] * 4]
    for (dataset, environment), scores in PUBLISHED.items():
        rows.append([dataset, environment, *(f"{scores[method]:.1f}" for method in methods)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(
    *,
    environments: tuple[str, ...] = tuple(ENVIRONMENTS),
    datasets: tuple[str, ...] = DATASETS,
    methods: tuple[str, ...] = tuple(METHODS),
    seeds: int = 3,
    minutes: float = 10.0,
    steps: int | None = None,
    preset: str = "tiny",
    record_episodes: int = 200,
    score_episodes: int = 20,
    third: float = 1 / 3,
    stages: int = 48,
    work: Path = Path("runs/offline"),
    csv: Path = Path("docs/offline.csv"),
    page: Path = Path("docs/offline.md"),
) -> None:
    """Make the datasets, train every method on each, and write the table.

    Args:
        environments: Names of the environments: halfcheetah, hopper, walker2d, pong.
        datasets: Names of the datasets: expert, medium, mixed.
        methods: Names of the methods: bc, gato, gato-return, dt, tt, jat.
        seeds: Trainings of each method, of the seeds 0 to seeds - 1.
        minutes: Time for the updates of each.
        steps: Updates of each, instead of minutes.
        preset: Size of the networks.
        record_episodes: Episodes of each dataset.
        score_episodes: Episodes that each network plays.
        third: Share of the way from random to the expert at which the medium policy is stopped.
        stages: Parts of the training's recipe, of each of which mixed has episodes.
        work: Folder of the study.
        csv: File of the table.
        page: File that shows it.

    Raises:
        ValueError: A name is unknown, or the folder holds a study of other amounts.
    """
    check_page(page, MARK, MARK_PUBLISHED)
    for setting, names, known in (
        ("environments", environments, ENVIRONMENTS), ("datasets", datasets, DATASETS),
        ("methods", methods, METHODS),
    ):  # fmt: skip
        if unknown := sorted(set(names) - set(known)):
            raise ValueError(f"{setting} names {unknown}: expected some of {list(known)}")
    plan = Plan(work, minutes, steps, preset, record_episodes, score_episodes, third, stages)
    with FolderLock(work):
        asked = {f.name: getattr(plan, f.name) for f in dataclasses.fields(plan)}
        record_identity(work / "study.json", {**asked, "work": None}, work)
        for environment in environments:
            task = ENVIRONMENTS[environment]
            folders = make_datasets(environment, datasets, plan)
            for dataset in datasets:
                for method in methods:
                    for seed in range(seeds):
                        output = work / environment / dataset / f"{method}-{seed}"
                        path = output / "result.json"
                        if path.exists():
                            continue
                        settings = settings_of(method, folders[dataset], output, plan, seed=seed)
                        result = run_method(settings, task, episodes=score_episodes)
                        if result is not None:
                            result["dataset_score"] = dataset_score(folders[dataset], task)
                        write_json(path, result)
        lines = list(_lines(work))
    if not lines:
        raise ValueError("no method plays these environments: choose others")
    write_csv(csv, lines)
    fill_page(page, MARK, markdown(lines))
    fill_page(page, MARK_PUBLISHED, published_markdown())


def _lines(work: Path) -> Iterator[dict[str, Any]]:
    """A line for each method of each dataset that has results."""
    for dataset in DATASETS:
        for environment in ENVIRONMENTS:
            for method in METHODS:
                paths = sorted((work / environment / dataset).glob(f"{method}-[0-9]*/result.json"))
                results = [result for path in paths if (result := read_json(path)) is not None]
                if results:
                    yield line(dataset, environment, method, results)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(main)))
