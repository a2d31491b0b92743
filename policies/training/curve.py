"""What is seen of a run: its curve as CSV, and a line that moves.

* :class:`Curve` -- averages over stretches of steps.
* :func:`bars` -- the columns of the moving line.
"""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from policies.training.loss import LossReport

CURVE_COLUMNS = (
    "step", "tokens", "minutes", "loss", "discrete_loss", "discrete_accuracy",
    "continuous_loss", "continuous_error", "gradient_norm", "text_loss", "text_accuracy",
)  # fmt: skip


def bars(*, shown: bool) -> Progress:
    """A line with the step, the loss, tokens a second and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
        refresh_per_second=1,
        disable=not shown,
    )


class Curve:
    """Averages reports over a stretch of steps and appends them to a CSV file.

    Args:
        path: The file.
        tokens: Tokens of a batch.
        stretch: Steps that a line of the file is the average of.
    """

    def __init__(self, path: Path, *, tokens: int, stretch: int = 50) -> None:
        self.path, self.tokens, self.stretch = path, tokens, stretch
        self.sums = torch.zeros(9)
        self.losses: list[float] = []
        self.norms: list[float] = []
        if not path.exists():
            with path.open("w", newline="") as file:
                csv.writer(file).writerow(CURVE_COLUMNS)
        with path.open(newline="") as file:  # a run that an older version began has fewer
            self.columns = len(next(csv.reader(file)))

    def add(self, step: int, minutes: float, report: LossReport, norm: float) -> str:
        """Take a report; returns a line to print when a stretch is complete, else ''."""
        self.sums += report.sums.cpu()
        self.losses.append(float(report.total / report.scale))
        self.norms.append(norm)
        if step % self.stretch:
            return ""
        s, count = self.sums.tolist(), len(self.losses)
        row = (
            step, step * self.tokens, round(minutes, 3), sum(self.losses) / count,
            s[1] / max(s[0], 1e-9), s[2] / max(s[0], 1e-9),
            s[4] / max(s[3], 1e-9), s[5] / max(s[3], 1e-9), sum(self.norms) / count,
            s[7] / max(s[6], 1e-9), s[8] / max(s[6], 1e-9),
        )  # fmt: skip
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow([f"{v:.6g}" for v in row[: self.columns]])
        self.sums, self.losses, self.norms = torch.zeros(9), [], []
        kinds = [f"discrete {row[4]:.4f} accuracy {row[5]:.4f}"] if s[0] else []
        kinds += [f"continuous {row[6]:.4f} error {row[7]:.4f}"] if s[3] else []
        kinds += [f"text {row[9]:.4f} accuracy {row[10]:.4f}"] if s[6] else []
        return (
            f"step {step}  {row[2]:.1f} min  loss {row[3]:.4f}  {'  '.join(kinds)}  "
            f"norm {row[8]:.2f}"
        )


def cut_curve(path: Path, step: int) -> None:
    """Drop rows that a resumed run will write again."""
    if path.exists():
        header, *rows = path.read_text().splitlines()
        kept = [row for row in rows if int(float(row.split(",")[0])) <= step]
        path.write_text("\n".join([header, *kept]) + "\n")
