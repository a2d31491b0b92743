"""Shares of tasks that follow scores or losses, against shares that stay as they are.

    python -m benchmarks.studies.adaptive
    python -m benchmarks.studies.adaptive --steps 200 --seeds 1 --suites babyai --episodes 5
    python -m benchmarks.studies.adaptive --steps 400 --rows 24 --episodes 5

Each variant is trained with as many updates from each seed, by the code of ``gato-gym train``, on
the episodes of :mod:`benchmarks.studies.gato_mini`, and plays by that of ``gato-gym bench``. A
network that is finished is kept, so that the command can be stopped and run again.

* :data:`VARIANTS` -- what is compared.
* :func:`settings_of` -- what a variant is trained with.
* :func:`main` -- the command.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks.studies import gato_mini, recipe_episodes
from benchmarks.studies.families import play
from benchmarks.studies.plots import check_page, fill_page, write_csv
from benchmarks.studies.scoring import MEAN
from gato_gym.commands.common import exit_status
from gato_gym.files.atomic_io import write_json
from gato_gym.files.bounded_io import read_json
from gato_gym.files.folder_lock import FolderLock
from policies.collection.scores import interval
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings

VARIANTS: Mapping[str, Literal["scores", "loss", "none"]] = {
    "uniform": "none",
    "scores": "scores",
    "loss": "loss",
}
"""What shares follow, by the name of a variant."""

SUITES = ("babyai", "metaworld")

MARK = "adaptive"


def settings_of(
    variant: str,
    seed: int,
    *,
    root: Path,
    work: Path,
    suites: tuple[str, ...],
    steps: int,
    rows: int = 48,
) -> TrainSettings:
    """What a variant is trained with; nothing but what shares follow is another.

    Args:
        variant: One of :data:`VARIANTS`.
        seed: Seed of weights and batches.
        root: Folder of the datasets.
        work: Folder of the study.
        suites: Whose tasks are trained on, each with as many tokens.
        steps: Updates. Shares follow the losses twenty times in them, and the scores twice, as
            those have to be played for.
        rows: Packed sequences of an update.
    """
    return TrainSettings(
        datasets=recipe_episodes.datasets(root, suites=suites),
        output=work / f"{variant}-{seed}",
        shards=work / "shards",
        network=gato_mini.NETWORK,
        steps=steps,
        group_by="suite",
        augment=1,
        keep=0.0,
        balance=0.0,
        adaptive=VARIANTS[variant],
        prompt_shares={suite: gato_mini.PROMPT_SHARES[suite] for suite in suites},
        task_embeddings=True,
        options={"actions": "parallel"},
        precision="auto",
        rows=rows,
        length=128,
        score_every=steps // 3 + 1 if VARIANTS[variant] == "scores" else 0,
        score_episodes=4,
        seed=seed,
    )


def run_variant(settings: TrainSettings, *, episodes: int) -> dict[str, Any]:
    """Train one network, and play with it: scores by suite and by task, as JSON values."""
    run = TrainRun(settings)
    checkpoint = run.train()
    return play(checkpoint, [task.id for task in run.tasks], episodes)


def rows_of(results: Mapping[tuple[str, int], Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each variant and suite, from the results by variant and seed.

    It has the mean over seeds of the suite's normalised mean, the 95 % interval over seeds, the
    mean of the weakest task, and the mean difference to "uniform" over the seeds that both have.
    """
    rows = []
    for variant in VARIANTS:
        mine = {seed: result for (name, seed), result in results.items() if name == variant}
        for suite in sorted({suite for result in mine.values() for suite in result["suites"]}):
            means = {seed: result["suites"][suite][MEAN]["value"] for seed, result in mine.items()}
            low, high = interval([[mean] for mean in means.values()], redraw_groups=True)
            row: dict[str, Any] = {"variant": variant, "suite": suite, "seeds": len(means)}
            row |= {"mean": float(np.mean(list(means.values()))), "low": low, "high": high}
            row["weakest"] = float(np.mean([weakest(result, suite) for result in mine.values()]))
            others = {seed: results.get(("uniform", seed)) for seed in means}
            gains = [
                means[seed] - other["suites"][suite][MEAN]["value"]
                for seed, other in others.items()
                if other is not None
            ]
            row["gain"] = float(np.mean(gains)) if gains else None
            rows.append(row)
    return rows


def weakest(result: Mapping[str, Any], suite: str) -> float:
    """The lowest score of a suite's tasks; NaN where none has one."""
    scores = [
        task["normalised"]
        for name, task in result["tasks"].items()
        if name.startswith(f"{suite}-") and task["normalised"] is not None
    ]
    return min(scores, default=float("nan"))


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table."""
    lines = ["| shares | suite | seeds | mean | weakest task | against uniform |", "|---" * 6 + "|"]
    for row in rows:
        gain = "-" if row["gain"] is None else f"{row['gain']:+.3f}"
        lines.append(
            f"| {row['variant']} | {row['suite']} | {row['seeds']} | {row['mean']:.3f} "
            f"({row['low']:.3f} to {row['high']:.3f}) | {row['weakest']:.3f} | {gain} |"
        )
    return "\n".join(lines)


def main(
    *,
    variants: tuple[str, ...] = tuple(VARIANTS),
    suites: tuple[str, ...] = SUITES,
    seeds: int = 3,
    steps: int = 1600,
    rows: int = 48,
    episodes: int = 20,
    root: Path = Path("data"),
    work: Path = Path("runs/adaptive"),
    page: Path = Path("docs/training.md"),
) -> None:
    """Compare what the shares of tasks follow.

    Args:
        variants: Names of the variants to train.
        suites: Suites to train on and to play.
        seeds: Seeds 0 to ``seeds - 1``.
        steps: Updates of each network.
        rows: Packed sequences of an update.
        episodes: Episodes of each task to play.
        root: Folder of the datasets, see benchmarks.studies.gato_mini.
        work: Folder of the study; its table.csv has the result.
        page: File that shows it.
    """
    check_page(page, MARK)
    for setting, names, known in (
        ("variants", variants, tuple(VARIANTS)),
        ("suites", suites, recipe_episodes.SUITES),
    ):
        if unknown := sorted(set(names) - set(known)):
            raise ValueError(f"{setting} names {unknown}: expected some of {list(known)}")
    with FolderLock(work):
        for seed in range(seeds):
            for variant in variants:
                path = work / f"{variant}-{seed}" / "result.json"
                if not path.exists():
                    settings = settings_of(
                        variant,
                        seed,
                        root=root,
                        work=work,
                        suites=suites,
                        steps=steps,
                        rows=rows,
                    )
                    write_json(path, run_variant(settings, episodes=episodes))
        paths = {
            (variant, seed): work / f"{variant}-{seed}" / "result.json"
            for variant in VARIANTS
            for seed in range(seeds)
        }
        results = {key: read_json(path) for key, path in paths.items() if path.exists()}
        table = rows_of(results)
        write_csv(work / "table.csv", table)
        fill_page(page, MARK, markdown(table))


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(main)))
