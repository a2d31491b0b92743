"""Scores of a run's kept steps, beside its training curve.

    python -m benchmarks.studies.learning_curve --work runs/gato-mini --episodes 4

Steps kept in the run's folder, and its end, are exported and scored by ``benchmarks.run``;
scores join ``metrics.csv`` as ``docs/gato-mini-curve.csv``, drawn in ``docs/gato-mini-curve.png``.
What was scored before is not played again.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from policies.training.export import export

SCORES = {"babyai": "normalised mean", "metaworld": "success"}
"""The aggregate of each suite's summary that is drawn."""


def score(work: Path, step: int | None, args: argparse.Namespace) -> dict[str, float]:
    """Score one step on every suite."""
    name = "last" if step is None else f"step-{step:06d}"
    checkpoint = work / "scored" / name
    if not (checkpoint / "config.json").exists():
        export(work, shards=args.shards, root=args.root, output=checkpoint, step=step)
    scores = {}
    for suite in args.suites:
        output = work / "scored" / f"{name}-{suite}"
        if is_complete(output):
            scores[suite] = score_in(output, suite)
            continue
        command = [
            sys.executable, "-m", "benchmarks.run", "--suite", suite, "--policy", str(checkpoint),
            "--episodes", str(args.episodes), "--output", str(output),
        ]  # fmt: skip
        command += ["--tasks", args.tasks] if args.tasks else []
        command += ["--resume"] if (output / "run.json").exists() else []
        subprocess.run(command, check=True)
        scores[suite] = score_in(output, suite)
    return scores


def is_complete(output: Path) -> bool:
    """Whether a benchmark's folder holds a finished run."""
    path = output / "summary.json"
    return path.exists() and bool(json.loads(path.read_text())["complete"])


def score_in(output: Path, suite: str) -> float:
    """The suite's score in a finished run's folder."""
    summary = json.loads((output / "summary.json").read_text())
    return float(summary["aggregates"][SCORES[suite]]["value"])


def write_csv(curve: list[dict[str, str]], scores: dict[int, dict[str, float]], path: Path) -> None:
    """The training curve with the scores of the steps that have them."""
    columns = [*curve[0], *(f"{suite}_score" for suite in SCORES)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        for row in curve:
            scored = scores.get(int(float(row["step"])), {})
            extra = {f"{suite}_score": f"{value:.4f}" for suite, value in scored.items()}
            writer.writerow({**row, **extra})


def draw(curve: list[dict[str, str]], scores: dict[int, dict[str, float]], path: Path) -> None:
    """Accuracy and error of the training batches on the left, scores on the right."""
    minutes = {int(float(row["step"])): float(row["minutes"]) for row in curve}
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    times = list(minutes.values())
    left.plot(times, [float(r["discrete_accuracy"]) for r in curve], label="BabyAI: accuracy")
    left.plot(
        times, [float(r["continuous_error"]) for r in curve], label="Meta-World: action error"
    )
    left.set(xlabel="minutes on two cores", title="training batches", ylim=(0, 1))
    left.legend(frameon=False)
    for suite, name in SCORES.items():
        points = [
            (minutes[s], found[suite]) for s, found in sorted(scores.items()) if suite in found
        ]
        if points:
            right.plot(*zip(*points, strict=True), "o-", label=f"{suite}: {name}")
    right.set(
        xlabel="minutes on two cores", title="benchmark", ylim=(0, 1), xlim=(0, 1.03 * max(times))
    )
    right.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/gato-mini"))
    parser.add_argument("--shards", type=Path, default=Path("data/shards"))
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--suites", nargs="+", default=list(SCORES))
    parser.add_argument("--tasks", default=None, help="as in benchmarks.run")
    parser.add_argument("--steps", type=int, nargs="*", help="of those kept; default: all")
    args = parser.parse_args()
    with (args.work / "metrics.csv").open() as file:
        curve = [
            {name: value for name, value in row.items() if "/" not in name}  # no task's own loss
            for row in csv.DictReader(file)
        ]
    kept = sorted(
        int(p.stem.split("-")[1]) for p in (args.work / "kept").glob("step-*.safetensors")
    )
    steps = kept if args.steps is None else args.steps
    scores = {step: score(args.work, step, args) for step in steps}
    scores[int(float(curve[-1]["step"]))] = score(args.work, None, args)
    write_csv(curve, scores, Path("docs/gato-mini-curve.csv"))
    draw(curve, scores, Path("docs/gato-mini-curve.png"))


if __name__ == "__main__":
    main()
