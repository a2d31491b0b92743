"""Correctness and speed of a device, in a few minutes: ``python -m benchmarks.speed gpu``.

* :func:`main` -- the command. It needs torch, NumPy, safetensors, SentencePiece, Gymnasium, rich
  and Jinja2, and uses pytest and ale-py where they are installed.
* :data:`PARTS` -- what is checked and measured, in this order.
* :class:`Sizes` -- how large that is.

Every result is in the output file as soon as it is known. A part that fails, or takes longer than
its share of the time that is left, is recorded as such, and the next one begins.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from benchmarks.speed import expert_training, gpu_checks, predicting, training
from benchmarks.speed.comparison import Comparison, table
from benchmarks.speed.gpu_checks import Check
from gato_gym.files.atomic_io import write_json
from gato_gym.files.bounded_io import read_text
from gato_gym.ranges import check_range
from gato_gym.terminal import new_console
from policies.model.quantization import choose_device
from policies.threads import available_cores

DONE, FAILED, STOPPED = 0, 1, 130
TESTS = Path(__file__).parents[2] / "tests"
LONGEST_ROUND = 0.5
"""Seconds for a way and round of a ratio, where there is time."""


@dataclass(frozen=True)
class Sizes:
    """How large what is measured is; names are those of presets and shipped checkpoints.

    Attributes:
        checked: Whose steps are checked.
        losses: Whose losses are checked.
        steps: Steps of the training run that has them.
        attention: Length, heads and size of a head.
        read: Whose forward is compared with reading its weights, and in which precision.
        acting: Whose steps a second are measured.
        rows: Larger batches of these.
        trained: Whose training is compared with the device's peak.
        batch: Rows and length of its batch; None takes the usual.
        played: Fields of the games' recipe that are replaced.
    """

    checked: str = "tiny"
    losses: str = "0.4m"
    steps: int = 200
    attention: tuple[int, int, int] = (1024, 8, 64)
    read: tuple[str, str] = ("1.18b", "bfloat16")
    acting: tuple[str, ...] = ("gato-mini", "79m")
    rows: tuple[int, ...] = (64, 1024)
    trained: str = "364m"
    batch: tuple[int, int] | None = None
    played: dict[str, int] = field(default_factory=dict)


SIZES = {
    "cuda": Sizes(),
    "cpu": Sizes(
        checked="0.4m",
        steps=20,
        attention=(128, 2, 16),
        read=("mini", "float32"),  # of a smaller one, reading is too short to be timed
        acting=("0.4m",),
        rows=(2, 8),
        trained="0.4m",
        batch=(2, 64),
        played={"num_envs": 4, "n_steps": 16, "batch_size": 64, "n_epochs": 1},
    ),
}
"""By kind of device: a CPU shows that every part works."""


@dataclass(frozen=True)
class Setting:
    """What every part is given: the device, the sizes, seconds of a round, and a folder."""

    device: torch.device
    sizes: Sizes
    seconds: float
    folder: Path


class LeftOutError(Exception):
    """A part cannot be done here; it says why."""


class OutOfTimeError(BaseException):
    """A part's time is over; no handler of errors on the way is meant."""


def marked_tests(on: Setting) -> Iterator[Check]:
    """The tests marked ``gpu``, where pytest is there."""
    if on.device.type == "cpu":
        raise LeftOutError("the tests marked gpu need one")
    if importlib.util.find_spec("pytest") is None:
        raise LeftOutError("pytest is not installed")
    files = [path for path in sorted(TESTS.rglob("test_*.py")) if "mark.gpu" in read_text(path)]
    if not files:
        raise LeftOutError(
            f"{TESTS} holds no tests marked gpu: run it in a clone of the repository"
        )
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", *map(str, files)]
    run = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    print(run.stdout[-2000:] + run.stderr[-2000:])
    yield Check("exit status of pytest -m gpu", run.returncode, 0)


def cached(on: Setting) -> Iterator[Check]:
    """Steps with the cache against whole sequences."""
    yield from gpu_checks.cached_against_full(on.sizes.checked, device=on.device)


def attention(on: Setting) -> Iterator[Check]:
    """The attention of training against float64, forward and backward."""
    length, heads, size = on.sizes.attention
    yield from gpu_checks.attention_against_float64(
        device=on.device, length=length, heads=heads, size=size
    )


def compiled(on: Setting) -> Iterator[Check]:
    """Compiled steps against plain ones."""
    yield from gpu_checks.compiled_against_plain(on.sizes.checked, device=on.device)


def trained(on: Setting) -> Iterator[Check]:
    """Compiled blocks of training against plain ones, forward and backward."""
    if on.device.type == "cpu":
        raise LeftOutError("a CPU trains without compiling")
    yield from gpu_checks.compiled_training_against_plain(on.sizes.checked, device=on.device)


def losses(on: Setting) -> Iterator[Check]:
    """A training run's losses against a CPU's."""
    yield from gpu_checks.losses_against_cpu(
        on.sizes.losses, on.folder, device=on.device, steps=on.sizes.steps
    )


def reading(on: Setting) -> Iterator[Comparison]:
    """A forward against reading the weights."""
    name, precision = on.sizes.read
    limit = "at most 1.3" if on.device.type != "cpu" else ""
    yield predicting.reading(
        name, device=on.device, precision=precision, limit=limit, seconds=on.seconds
    )


def compiling(on: Setting) -> Iterator[Comparison]:
    """Compiled steps' speed against that of plain ones."""
    batches = 1, on.sizes.rows[0]
    for name in on.sizes.acting:
        yield from predicting.compiled_steps(
            name, device=on.device, seconds=on.seconds, batches=batches
        )


def stepping(on: Setting) -> Iterator[Comparison]:
    """Steps a second of larger batches against those of one row."""
    for name in on.sizes.acting:
        precision = "float32" if on.device.type == "cpu" else "bfloat16"
        policy = predicting.make_policy(name, device=on.device, precision=precision)
        for rows in on.sizes.rows:
            yield predicting.rows_together(name, policy, rows, seconds=on.seconds)


def peak(on: Setting) -> Iterator[Comparison]:
    """Training at share of the peak."""
    sizes = on.sizes
    yield training.share_of_peak(
        sizes.trained, on.folder, device=on.device, seconds=on.seconds, batch=sizes.batch
    )


def playing(on: Setting) -> Iterator[Comparison]:
    """PPO for one Atari game on all cores, where ale-py is there."""
    if importlib.util.find_spec("ale_py") is None:
        raise LeftOutError("ale-py is not installed")
    yield expert_training.game(
        "Pong",
        seconds=on.seconds,
        device=str(on.device),
        threads=available_cores(),
        sizes=on.sizes.played,
    )


@dataclass(frozen=True)
class Part:
    """Something that is checked or measured.

    Attributes:
        name: What is checked or measured, in words.
        work: Yields its results.
        share: Share of the time that is left, against the shares of the parts that follow.
    """

    name: str
    work: Callable[[Setting], Iterator[Check | Comparison]]
    share: float


PARTS = (
    Part("tests marked gpu", marked_tests, 1.0),
    Part("cached steps against whole sequences", cached, 1.0),
    Part("attention and its gradients against float64", attention, 4.0),
    Part("compiled steps against plain ones", compiled, 4.0),
    Part("compiled blocks of training against plain ones", trained, 4.0),
    Part("losses of a training run against a CPU's", losses, 4.0),
    Part("a forward over reading its weights", reading, 5.0),
    Part("speed of recorded and compiled steps over plain ones", compiling, 6.0),
    Part("steps a second by rows", stepping, 4.0),
    Part("training at share of the peak", peak, 3.0),
    Part("PPO for an Atari game on all cores", playing, 1.5),
)


@dataclass
class Report:
    """What is known so far, on the console and in the output file.

    Attributes:
        output: The file; None writes none.
        about: The machine and the sizes.
        parts: The finished parts and the one under way, as JSON values.
    """

    output: Path | None
    about: dict[str, Any]
    parts: list[dict[str, Any]] = field(default_factory=list)
    console: Any = field(default_factory=lambda: new_console(highlight=False, soft_wrap=True))

    def begin(self, name: str, limit: float) -> None:
        """A part begins, for at most ``limit`` seconds."""
        self.console.print(f"{name} (at most {limit:.0f} s)")
        self.parts.append({"name": name, "state": "under way", "checks": [], "comparisons": []})

    def add(self, result: Check | Comparison) -> None:
        """A result of the part under way."""
        kind = "checks" if isinstance(result, Check) else "comparisons"
        self.parts[-1][kind].append(asdict(result))
        if isinstance(result, Check):
            verdict = "holds" if result.holds else "BROKEN"
            self.parts[-1][kind][-1]["holds"] = result.holds
            line = f"{verdict}  {result.error:.1e}, at most {result.largest:.1e}: {result.name}"
        else:
            asked = f" (asked: {result.limit})" if result.limit else ""
            line = f"{result.ratio:8.3f}  {result.name}: {result.fast} over {result.slow}{asked}"
        self.console.print(f"  {line}")
        self.save()

    def end(self, state: str, seconds: float) -> None:
        """The part under way is over: "done", or why it is not."""
        self.parts[-1] |= {"state": state, "seconds": round(seconds, 3)}
        if state != "done":
            self.console.print(f"  {state}")
        self.save()

    def save(self) -> None:
        """Write the file."""
        if self.output is not None:
            write_json(self.output, {**self.about, "parts": self.parts})

    @property
    def faultless(self) -> bool:
        """Whether no part failed and every check holds."""
        checks = [check["holds"] for part in self.parts for check in part["checks"]]
        return all(checks) and not any(p["state"].startswith("failed") for p in self.parts)


def measure(on: Setting, report: Report, parts: Sequence[Part], *, until: float) -> None:
    """Do these parts, and end by a moment of :func:`time.monotonic`."""
    for index, part in enumerate(parts):
        left = until - time.monotonic()
        limit = left * part.share / sum(each.share for each in parts[index:])
        begun = time.monotonic()
        report.begin(part.name, max(limit, 0.0))
        try:
            with _at_most(limit):
                for result in part.work(on):
                    report.add(result)
            state = "done"
        except OutOfTimeError:
            state = "out of time"
        except KeyboardInterrupt:
            report.end("stopped", time.monotonic() - begun)
            raise
        except LeftOutError as reason:
            state = f"left out: {reason}"
        except Exception as error:  # whatever a new device does wrong, the other parts count
            state = f"failed: {type(error).__name__}: {error}"
        report.end(state, time.monotonic() - begun)
        if on.device.type == "cuda":
            torch.cuda.empty_cache()


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise :class:`OutOfTimeError` when the block takes longer."""
    if seconds <= 0:
        raise OutOfTimeError

    def ring(number: int, frame: FrameType | None) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def describe(device: torch.device, sizes: Sizes) -> dict[str, Any]:
    """The machine and the sizes, as JSON values."""
    is_cpu = device.type == "cpu"
    return {
        "device": platform.processor() or "cpu" if is_cpu else torch.cuda.get_device_name(device),
        "cores": available_cores(),
        "torch": torch.__version__,
        "tiny": is_cpu,
        "sizes": asdict(sizes),
    }


@dataclass(frozen=True)
class Arguments:
    """What was asked for: minutes, the device's name, the output file or None, and words of the
    names of parts, empty for all."""

    minutes: float
    device: str
    output: Path | None
    only: Sequence[str]

    def __post_init__(self) -> None:
        check_range(self, "minutes", above=True)
        for words in self.only:
            if not any(words in part.name for part in PARTS):
                names = "; ".join(part.name for part in PARTS)
                raise ValueError(f"only is {words!r}: expected words of one of {names}")

    @property
    def parts(self) -> list[Part]:
        """The parts that are asked for."""
        only = self.only or ("",)
        return [part for part in PARTS if any(words in part.name for words in only)]


def parse(arguments: Sequence[str]) -> tuple[Arguments, torch.device]:
    """What was asked for, and the device.

    Raises:
        SystemExit: It cannot be done, or the help was shown.
    """
    parser = argparse.ArgumentParser("python -m benchmarks.speed gpu", description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=9.0, help="time for all parts")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for tiny sizes")
    parser.add_argument("--output", type=Path, help="write every result to this file as JSON")
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="WORDS", help="parts whose names have these words"
    )
    try:
        asked = Arguments(**vars(parser.parse_args(arguments)))
        device = choose_device(asked.device)
        if device.type not in SIZES:
            raise ValueError(f"device is {asked.device!r}: expected cuda or cpu")
        if asked.output is not None:
            write_json(asked.output, {"parts": []})
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return asked, device


def main(arguments: Sequence[str]) -> int:
    """Check and measure a device, correctness first."""
    begun = time.monotonic()
    asked, device = parse(arguments)
    sizes = SIZES[device.type]
    report = Report(asked.output, describe(device, sizes))
    report.console.print(f"{report.about['device']}, torch {torch.__version__}")
    if device.type == "cpu":
        full = SIZES["cuda"]
        report.console.print(
            f"on a CPU all sizes are tiny, such as {sizes.read[0]} instead of {full.read[0]}, and "
            f"the attention that is checked is dense: this shows that every part works"
        )
    seconds = min(LONGEST_ROUND, asked.minutes / 18)
    status = DONE
    with tempfile.TemporaryDirectory() as folder:
        on = Setting(device, sizes, seconds, Path(folder))
        try:
            measure(on, report, asked.parts, until=begun + 60 * asked.minutes)
        except KeyboardInterrupt:
            status = STOPPED
    comparisons = [Comparison(**each) for part in report.parts for each in part["comparisons"]]
    if comparisons:
        report.console.print(table(comparisons))
    return status if report.faultless else status or FAILED
