"""Gato's tokens and JAT's embeddings on the same episodes, in networks of as many parameters.

    python -m benchmarks.studies.families --minutes 30
    python -m benchmarks.studies.families --suites babyai metaworld --minutes 5 --episodes 10

Each variant is trained for as many minutes, by the code of ``gato-gym train``, and plays by that of
``gato-gym bench``. The episodes are those of :mod:`benchmarks.studies.gato_mini`. The width of the
feed-forward makes the numbers of parameters equal. A variant that is finished is kept, so that the
command can be stopped and run again; the table is drawn from all that are there.

* :data:`VARIANTS` -- what is compared.
* :func:`matched` -- the network of a variant with as many parameters as asked for.
* :func:`run_variant` -- trains one and plays with it.
* :func:`main` -- the command.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.studies import gato_mini
from benchmarks.studies.gato_mini import SUITES
from benchmarks.studies.plots import fill_page, write_csv
from benchmarks.studies.scoring import bench, shown, suite_means
from gato_gym import get_task
from gato_gym.commands.common import exit_status
from gato_gym.files.atomic_io import surviving, write_json
from gato_gym.files.bounded_io import read_json
from gato_gym.files.folder_lock import FolderLock
from policies.base import batch_of_one
from policies.model.network import count_parameters
from policies.registry import make_policy
from policies.training.families.registry import find_family
from policies.training.run import TrainRun, tasks_of
from policies.training.settings import TrainSettings

MARK = "families"
BATCHES = (1, 64)
WEAKEST = 3
"""Tasks that a table names as those in which a variant is worst."""

TIMED, WARMING = "mujoco-halfcheetah", 64
"""The task whose steps are timed, and steps before, after which a context is full."""


@dataclass(frozen=True)
class Variant:
    """One network.

    Attributes:
        name: Name of its folder and its line.
        what: In words.
        width: The field of its sizes that is the feed-forward's width.
        changes: Fields of :class:`~policies.training.settings.TrainSettings`.
    """

    name: str
    what: str
    width: str
    changes: Mapping[str, Any] = field(default_factory=dict)


_SIZES = {key: gato_mini.NETWORK[key] for key in ("width", "heads", "vector_hidden")}
VARIANTS = (
    Variant(
        "gato-paper", "Gato, a token for each number and patch", "feed_forward",
        {
            "layout": "paper", "memory": "all", "rows": 12, "length": 512,
            "options": {"image_size": 0, "actions": "autoregressive"},
            "network": {**_SIZES, "prompt_tokens": 256, "window": 512},
            "prompt_shares": gato_mini.PROMPT_SHARES, "task_embeddings": True,
        },
    ),
    Variant(
        "gato-lean", "Gato, a timestep as few tokens", "feed_forward",
        {
            "options": {"actions": "parallel"}, "rows": 48, "length": 128,
            "network": gato_mini.NETWORK,
            "prompt_shares": gato_mini.PROMPT_SHARES, "task_embeddings": True,
        },
    ),
    Variant(
        "jat", "JAT, an embedding for an observation and for an action", "intermediate_size",
        {"family": "jat", "rows": 24, "length": 256},
    ),
)  # fmt: skip
NAMES = tuple(variant.name for variant in VARIANTS)


def settings_of(
    variant: Variant, root: Path, work: Path, *, suites: tuple[str, ...], minutes: float
) -> TrainSettings:
    """What a variant is trained with, before its size is matched.

    Args:
        variant: What is trained.
        root: Folder of the datasets.
        work: Folder of the study.
        suites: Whose tasks are trained on.
        minutes: Time for updates.
    """
    base = TrainSettings(
        datasets=gato_mini.datasets(root, suites=suites),
        output=work / variant.name,
        shards=work / "shards" / variant.name,
        minutes=minutes,
        group_by="suite",
        augment=1,
        keep=0.0,
        weights={suite: gato_mini.WEIGHTS[suite] for suite in suites},
        precision="auto",
        score_every=0,
    )
    changes = dict(variant.changes)
    if "prompt_shares" in changes:
        changes["prompt_shares"] = {suite: changes["prompt_shares"][suite] for suite in suites}
    return dataclasses.replace(base, **changes)


def matched(variant: Variant, settings: TrainSettings, parameters: int) -> TrainSettings:
    """The settings with a feed-forward that gives the network as many parameters, nearly.

    Raises:
        ValueError: The rest of the network has more.
    """
    family, tasks = find_family(settings.family), tasks_of(settings)

    def with_width(width: int) -> TrainSettings:
        network = {**settings.network, variant.width: width}
        return dataclasses.replace(settings, network=network)

    def count(width: int) -> int:
        return count_parameters(family.build(family.sizes(with_width(width), tasks)))

    one = count(1)
    more = count(2) - one
    width = 1 + round((parameters - one) / more)
    if width < 1:
        raise ValueError(
            f"{variant.name} has {one:,} parameters with the narrowest feed-forward: expected at "
            f"most {parameters:,}; use a larger --parameters"
        )
    return with_width(width)


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
        **{f"steps_a_second_{rows}": steps_a_second(checkpoint, tasks, rows) for rows in BATCHES},
        **play(checkpoint, tasks, episodes),
    }


def steps_a_second(
    checkpoint: Path, tasks: Sequence[str], rows: int, *, seconds: float = 5.0
) -> float:
    """Environment steps that ``predict`` chooses actions for in a second, in a full context.

    Args:
        checkpoint: Who acts.
        tasks: What it plays; :data:`TIMED` if that is among them, else the first is timed.
        rows: Environments of a batch.
        seconds: How long.
    """
    with closing(get_task(TIMED if TIMED in tasks else tasks[0]).make()) as env:
        observation, _ = env.reset(seed=0)
        policy = make_policy(checkpoint, env=env)
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


def play(checkpoint: Path, tasks: Sequence[str], episodes: int) -> dict[str, Any]:
    """The summary of a benchmark's run of the checkpoint, which is resumed where it has begun."""
    summary = bench(
        checkpoint.parent / "scores",
        *("--suite", "all", "--tasks", ",".join(tasks), "--policy", str(checkpoint)),
        *("--episodes", str(episodes)),
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
    """The lines as a table, a variant a column."""
    rows: dict[str, list[str]] = {
        "parameters": [f"{v['parameters']:,}" for v in lines],
        "minutes of training": [f"{v['minutes']:.1f}" for v in lines],
        "tokens": [f"{v['tokens'] / 1e6:.1f}M" for v in lines],
        "updates": [f"{v['steps']:,}" for v in lines],
    }
    for suite in SUITES:
        if any(v[suite] is not None for v in lines):
            rows[suite] = [shown(v, suite) for v in lines]
    for batch in BATCHES:
        rates = [f"{v[f'steps_a_second_{batch}']:,.0f}" for v in lines]
        rows[f"steps a second, batch {batch}"] = rates
    rows["weakest tasks"] = [str(v["weakest"]) for v in lines]
    head = ["", *(str(v["what"]) for v in lines)]
    table = [head, ["---"] * len(head), *([name, *cells] for name, cells in rows.items())]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def write_table(results: Sequence[Mapping[str, Any]], table: Path, page: Path) -> None:
    """Write the table as CSV, and into a page where its comments say.

    Raises:
        ValueError: The page has no such place.
    """
    lines = [line(result) for result in results]
    write_csv(table, lines)
    fill_page(page, MARK, markdown(lines))


def main(
    *,
    variants: tuple[str, ...] = NAMES,
    suites: tuple[str, ...] = SUITES,
    minutes: float = 30.0,
    parameters: int = 5_500_000,
    episodes: int = 20,
    root: Path = Path("data"),
    work: Path = Path("runs/families"),
    csv: Path = Path("docs/families.csv"),
    page: Path = Path("docs/families.md"),
) -> None:
    """Compare the families of networks.

    Args:
        variants: Names of the variants to train.
        suites: Suites to train on and to play.
        minutes: Time for the updates of each.
        parameters: Of each network.
        episodes: Episodes of each task to play.
        root: Folder of the datasets, see benchmarks.studies.gato_mini.
        work: Folder of the study.
        csv: File of the table.
        page: File that shows the table.
    """
    by_name = {variant.name: variant for variant in VARIANTS}
    for setting, names, known in (("variants", variants, NAMES), ("suites", suites, SUITES)):
        if unknown := sorted(set(names) - set(known)):
            raise ValueError(f"{setting} names {unknown}: expected some of {list(known)}")
    with FolderLock(work):
        for name in variants:
            path, variant = work / name / "result.json", by_name[name]
            if not path.exists():
                settings = settings_of(variant, root, work, suites=suites, minutes=minutes)
                settings = matched(variant, settings, parameters)
                write_json(path, run_variant(variant, settings, episodes=episodes))
    paths = [work / name / "result.json" for name in NAMES]
    write_table([read_json(path) for path in paths if path.exists()], csv, page)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(main)))
