"""What is seen of a run: ``metrics.csv``, TensorBoard's events, W&B, and a line that moves.

* :class:`Metrics` -- averages over stretches of steps; a row for each.
* :func:`bars` -- the columns of the moving line.
* :func:`flops_per_token` -- what the network's matrix products cost.
* :func:`measured_peak` -- what the machine does in one large matrix product.
"""

from __future__ import annotations

import csv
import functools
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from gato_gym.files.atomic_io import appearing_file
from gato_gym.files.bounded_io import read_text
from policies.model.config import NetworkConfig
from policies.training.loss import LossReport

SIZES = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the matrices that are multiplied."""


def flops_per_token(config: NetworkConfig, length: int) -> float:
    """Floating-point operations of the forward and backward pass for a token.

    ``6 N + 12 L H K T`` (arXiv 2204.02311, appendix B), of the backbone's matrices alone: neither
    the embedding and the logits, which only some tokens need, nor what recomputation repeats.

    Args:
        config: Sizes of the network.
        length: T, of a packed sequence.
    """
    inner = config.heads * config.head_size
    weights = config.layers * config.width * (4 * inner + 3 * config.feed_forward)
    return float(6 * weights + 12 * config.layers * inner * length)


def measured_peak(device: torch.device) -> float:
    """Operations a second of a matrix product, float32 or bfloat16, whichever is faster.

    The threads are those that the process has; what runs beside it is in the number too.
    """
    return _measured(device, torch.get_num_threads())


@functools.cache
def _measured(device: torch.device, threads: int) -> float:
    size = SIZES.get(device.type, SIZES["cuda"])
    rates = []
    for dtype in (torch.float32, torch.bfloat16):
        multiply = product(device, dtype, size)
        multiply()
        begun = time.perf_counter()
        multiply()
        once = time.perf_counter() - begun
        times = [once] if once > 0.1 else [once, *(_seconds(multiply) for _ in range(4))]
        rates.append(2 * size**3 / min(times))
    return max(rates)


def product(device: torch.device, dtype: torch.dtype, size: int) -> Callable[[], object]:
    """A call that multiplies two square matrices and returns when the device has."""
    matrix = torch.full((size, size), 0.5, dtype=dtype, device=device)  # draws no random numbers

    def multiply() -> None:
        torch.mm(matrix, matrix)
        finish(device)

    return multiply


def finish(device: torch.device) -> None:
    """Return when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


METRICS_FILE = "metrics.csv"

COLUMNS = (
    "step", "tokens", "minutes", "loss", "discrete_loss", "discrete_accuracy",
    "continuous_loss", "continuous_error", "gradient_norm", "tokens_per_second", "peak_share",
    "text_loss", "text_accuracy",
)  # fmt: skip
"""What every row has; a column ``loss/TASK`` for each task and ``score/TASK`` for each that is
scored follow."""


def bars(*, shown: bool) -> Progress:
    """A line with the step, the loss, tokens a second, share of the peak and the time left."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        TimeRemainingColumn(),
        TextColumn("left"),
        refresh_per_second=1,
        disable=not shown,
    )


def tensorboard_missing() -> str:
    """What to install for TensorBoard's events; empty where it is there."""
    if find_spec("tensorboard") is not None:
        return ""
    return 'TensorBoard is not installed: run pip install "gato-gym[tensorboard]"'


def wandb_missing() -> str:
    """What to install for Weights & Biases; empty where it is there."""
    return "" if find_spec("wandb") is not None else "W&B is not installed: run pip install wandb"


class WandbWriter:
    """A run of Weights & Biases, which takes what TensorBoard's ``SummaryWriter`` takes.

    A training that is resumed continues its run there: ``wandb/id`` in its folder says which.

    Args:
        project: The project at W&B.
        folder: The training's folder.
    """

    def __init__(self, project: str, folder: Path) -> None:
        import wandb

        place = folder / "wandb" / "id"
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(uuid.uuid4().hex[:12])
        self._run: Any = wandb.init(
            project=project, name=folder.name, dir=folder, id=read_text(place), resume="allow"
        )
        self._row: dict[str, float] = {}
        self._step = 0

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """A value of a step."""
        self._row[name], self._step = value, step

    def flush(self) -> None:
        """Log the step's values."""
        self._run.log(self._row, step=self._step)
        self._row = {}

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class Metrics:
    """Averages reports over several steps and appends them to a CSV file.

    Rows past the step that a run resumes at are dropped: they will be written again. What it had
    summed up for the row under way, :meth:`to_json`, is taken up, so that a run that was stopped
    has the rows of one that was not.

    Args:
        folder: The run's folder.
        tasks: Ids, and names of texts, in the order of the reports' numbers.
        scored: Ids of those that are scored during the run.
        step: Steps that are done.
        begun: What :meth:`to_json` returned at that step; None where nothing is known.
        is_scored: Whether that step is scored.
        tokens: Tokens of a batch.
        log_every: Steps that a row is the average of.
        peak: Tokens a second that the machine's peak would give.
        tensorboard: Whether to write TensorBoard's events as well, where it is installed.
        wandb: Project of Weights & Biases to log to as well, where that is installed.

    Attributes:
        task_losses: Mean losses of the last row, by task.
        is_due: Whether the run resumes where a row was due that is not there, or has no scores.
    """

    def __init__(
        self,
        folder: Path,
        tasks: Sequence[str],
        *,
        scored: Sequence[str] = (),
        step: int = 0,
        begun: Mapping[str, Any] | None = None,
        is_scored: bool = False,
        tokens: int,
        log_every: int = 50,
        peak: float,
        tensorboard: bool = False,
        wandb: str | None = None,
    ) -> None:
        self.path, self.tasks = folder / METRICS_FILE, tuple(tasks)
        self.tokens, self.log_every, self.peak = tokens, log_every, peak
        self.columns = (
            *COLUMNS, *(f"loss/{t}" for t in tasks), *(f"score/{t}" for t in scored),
        )  # fmt: skip
        self.task_losses: dict[str, float] = {}
        self._clear()
        begun = begun if begun and begun["losses"] else None
        complete = self._begin_file(step, scored if is_scored and begun else ())
        self.is_due = False
        if begun is not None and not complete:
            self.is_due = is_scored or step % log_every == 0
            self._take_up(begun)
        self._writers: list[Any] = []
        if tensorboard and not tensorboard_missing():
            from torch.utils.tensorboard import SummaryWriter

            self._writers.append(SummaryWriter(folder / "tensorboard", purge_step=step + 1))
        if wandb is not None and not wandb_missing():
            self._writers.append(WandbWriter(wandb, folder))

    def _begin_file(self, step: int, scored: Sequence[str]) -> bool:
        """Keep the rows up to a step; whether that step's is there, with scores of these tasks."""
        rows: list[dict[str, str]] = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if float(row["step"]) <= step]
        there = bool(rows) and float(rows[-1]["step"]) == step
        complete = there and all(rows[-1].get(f"score/{task}") for task in scored)
        if there and not complete:
            rows.pop()
        with appearing_file(self.path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return complete

    def to_json(self) -> dict[str, Any]:
        """What is summed up since the last row, as JSON values."""
        return {
            "sums": self.sums.tolist(),
            "by_task": self.by_task.tolist(),
            "losses": self.losses,
            "norms": self.norms,
            "seconds": self.seconds,
        }

    def _clear(self) -> None:
        self.sums, self.by_task = torch.zeros(9), torch.zeros(len(self.tasks), 2)
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.seconds = 0.0

    def _take_up(self, begun: Mapping[str, Any]) -> None:
        self.sums = torch.tensor(begun["sums"])
        self.by_task = torch.tensor(begun["by_task"]).view(-1, 2)
        self.losses, self.norms = list(begun["losses"]), list(begun["norms"])
        self.seconds = float(begun["seconds"])

    def add(self, step: int, seconds: float, report: LossReport, norm: float) -> bool:
        """Take a step's report; returns whether a row of the file is complete."""
        self.sums += report.sums
        self.by_task += report.tasks
        self.losses.append(float(report.total / report.scale))
        self.norms.append(norm)
        self.seconds += seconds
        return step % self.log_every == 0

    def state(self, loss: float, speed: float) -> str:
        """What the moving line says of a step: its loss, and tokens a second."""
        return f"loss {loss:.3f}  {speed:,.0f} tokens/s, {speed / self.peak:.0%} of the peak"

    def write(self, step: int, minutes: float, scores: Mapping[str, float] | None = None) -> str:
        """Write the row of the steps since the last one; returns a line to print."""
        s, count = self.sums.tolist(), len(self.losses)
        speed = count * self.tokens / max(self.seconds, 1e-9)
        values = (
            step, step * self.tokens, round(minutes, 3), sum(self.losses) / count,
            s[1] / max(s[0], 1e-9), s[2] / max(s[0], 1e-9),
            s[4] / max(s[3], 1e-9), s[5] / max(s[3], 1e-9), sum(self.norms) / count,
            speed, speed / self.peak, s[7] / max(s[6], 1e-9), s[8] / max(s[6], 1e-9),
        )  # fmt: skip
        row = dict(zip(COLUMNS, values, strict=True))
        self.task_losses = _task_losses(self.tasks, self.by_task)
        row |= {f"loss/{task}": loss for task, loss in self.task_losses.items()}
        row |= {f"score/{task}": value for task, value in (scores or {}).items()}
        with self.path.open("a", newline="") as file:
            table = csv.DictWriter(file, self.columns, restval="")
            table.writerow({name: _short(value) for name, value in row.items()})
        for writer in self._writers:
            for name, value in row.items():
                if name != "step":
                    writer.add_scalar(name, value, step)
            writer.flush()
        line = self._line(row, discrete=bool(s[0]), continuous=bool(s[3]), text=bool(s[6]))
        self._clear()
        return line

    def _line(
        self, row: Mapping[str, float], *, discrete: bool, continuous: bool, text: bool
    ) -> str:
        kinds = []
        if discrete:
            kinds.append(f"discrete {row['discrete_loss']:.4f} ")
            kinds[-1] += f"accuracy {row['discrete_accuracy']:.4f}"
        if continuous:
            kinds.append(f"continuous {row['continuous_loss']:.4f} ")
            kinds[-1] += f"error {row['continuous_error']:.4f}"
        if text:
            kinds.append(f"text {row['text_loss']:.4f} accuracy {row['text_accuracy']:.4f}")
        return (
            f"step {row['step']}  {row['minutes']:.1f} min  loss {row['loss']:.4f}  "
            f"{'  '.join(kinds)}  norm {row['gradient_norm']:.2f}"
        )

    def close(self) -> None:
        """Write out what TensorBoard and W&B still hold."""
        for writer in self._writers:
            writer.close()


def _task_losses(tasks: Sequence[str], by_task: Tensor) -> dict[str, float]:
    """Mean loss of each task that those steps had tokens of."""
    sums = zip(tasks, by_task.tolist(), strict=True)
    return {task: loss / weight for task, (weight, loss) in sums if weight}


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"
