"""Scores of a run's kept steps, beside its training curve.

    python -m benchmarks.studies.learning_curve --work runs/gato-mini --episodes 4

Steps kept in the run's folder, and its end, are exported and scored by ``benchmarks.run``;
scores join ``metrics.csv`` as ``docs/gato-mini-curve.csv``, drawn in ``docs/gato-mini-curve.png``.
What was scored before is not played again.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

from benchmarks.studies.gato_mini import round_settings
from benchmarks.studies.plots import panels, write_csv
from benchmarks.studies.recipe_episodes import SUITES
from benchmarks.studies.scoring import MEAN, bench
from gato_gym.commands.common import exit_status
from policies.training.run import TrainRun


def score(
    run: TrainRun, step: int | None, suites: Sequence[str], tasks: str | None, episodes: int
) -> dict[str, float]:
    """Score one step on some suites."""
    name = "last" if step is None else f"step-{step:06d}"
    folder = run.settings.output / "scored"
    if not (folder / name / "config.json").exists():
        run.export(folder / name, step=step)
    scores = {}
    for suite in suites:
        summary = bench(
            folder / f"{name}-{suite}",
            *("--suite", suite, "--policy", str(folder / name), "--episodes", str(episodes)),
            *(["--tasks", tasks] if tasks else []),
        )
        scores[suite] = float(summary["aggregates"][MEAN]["value"])
    return scores


def with_scores(
    curve: list[dict[str, str]], scores: dict[int, dict[str, float]]
) -> list[dict[str, str]]:
    """The training curve with the scores of the steps that have them."""
    rows = []
    for row in curve:
        scored = scores.get(int(float(row["step"])), {})
        columns = {f"{s}_score": f"{scored[s]:.4f}" if s in scored else "" for s in SUITES}
        rows.append({**row, **columns})
    return rows


def draw(curve: list[dict[str, str]], scores: dict[int, dict[str, float]], path: Path) -> None:
    """Accuracy and error of the training batches on the left, scores on the right."""
    minutes = {int(float(row["step"])): float(row["minutes"]) for row in curve}
    times = list(minutes.values())
    with panels(path, 1, 2) as (left, right):
        left.plot(times, [float(r["discrete_accuracy"]) for r in curve], label="choices: accuracy")
        left.plot(times, [float(r["continuous_error"]) for r in curve], label="numbers: error")
        left.set(xlabel="minutes on two cores", title="training batches", ylim=(0, 1))
        left.legend(frameon=False)
        for suite in SUITES:
            points = [(minutes[s], row[suite]) for s, row in sorted(scores.items()) if suite in row]
            if points:
                right.plot(*zip(*points, strict=True), "o-", label=f"{suite}: {MEAN}")
        right.set(
            xlabel="minutes on two cores",
            title="benchmark",
            ylim=(0, 1),
            xlim=(0, 1.03 * max(times)),
        )
        right.legend(frameon=False, loc="lower right")


def main(
    *,
    work: Path = Path("runs/gato-mini"),
    root: Path = Path("data"),
    episodes: int = 4,
    suites: tuple[str, ...] = SUITES,
    tasks: str | None = None,
    steps: tuple[int, ...] | None = None,
) -> None:
    """Score a run of gato-mini along its training.

    Args:
        work: Folder of the rounds, of which the first is scored.
        root: Folder of the datasets.
        episodes: Episodes of each task.
        suites: Which are played.
        tasks: Which are played, as in benchmarks.run.
        steps: Which of those kept; None for all.
    """
    run = TrainRun(round_settings(root, work))
    with (run.state / "metrics.csv").open() as file:
        curve = [
            {name: value for name, value in row.items() if "/" not in name}  # no task's own loss
            for row in csv.DictReader(file)
        ]
    kept = sorted(
        int(p.stem.split("-")[1]) for p in (run.state / "kept").glob("step-*.safetensors")
    )
    chosen = kept if steps is None else steps
    scores = {step: score(run, step, suites, tasks, episodes) for step in chosen}
    last = int(float(curve[-1]["step"]))
    scores[last] = score(run, None, suites, tasks, episodes)
    write_csv(Path("docs/gato-mini-curve.csv"), with_scores(curve, scores))
    draw(curve, scores, Path("docs/gato-mini-curve.png"))


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(main)))
