"""The command ``gato-gym speed``, also ``python -m benchmarks.speed``.

* :class:`Speed` -- the command.

``python -m benchmarks.speed gpu`` is :mod:`benchmarks.speed.gpu`, which needs fewer packages.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and sys.argv[1:2] == ["gpu"]:
    from benchmarks.speed.gpu import main as check_device

    sys.exit(check_device(sys.argv[2:]))

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from tyro.conf import Positional

from benchmarks.speed.comparison import Comparison, table
from gato_gym.commands.common import DONE, STOPPED, Command, Invocation, run_command
from gato_gym.commands.flags import MOST_THREADS
from gato_gym.files.atomic_io import write_json
from gato_gym.ranges import check_range
from gato_gym.terminal import new_console
from policies.model.config import PRESETS
from policies.threads import one_thread


def token_space(seconds: float) -> Iterator[Comparison]:
    """Everything about the token space."""
    from benchmarks.speed import tokenising

    for measure in (tokenising.copying, tokenising.tokenising):
        yield from measure(seconds=seconds)
    yield from tokenising.importing()


def policy(seconds: float, *, device: str, threads: int) -> Iterator[Comparison]:
    """Everything about a network policy, and what its environments cost in token space."""
    import torch

    from benchmarks.speed import predicting, tokenising
    from policies.model.quantization import choose_device

    place = choose_device(device)
    torch.set_num_threads(threads)
    yield from shipped(seconds, device=device, threads=threads)
    yield from tokenising.stepping(seconds=seconds)
    yield from predicting.mini_network("gato-mini", device=place, seconds=seconds)
    yield from predicting.large_network("79m", device=place, seconds=seconds)
    yield from weights(seconds, device=device, threads=threads)


def shipped(seconds: float, *, device: str, threads: int) -> Iterator[Comparison]:
    """The part of ``predict`` that measures the shipped network as it acts."""
    import torch

    from benchmarks.speed import acting
    from policies.model.quantization import choose_device

    torch.set_num_threads(threads)
    yield from acting.as_shipped(device=choose_device(device), seconds=seconds)
    yield from acting.fresh_processes()


def weights(seconds: float, *, device: str, threads: int) -> Iterator[Comparison]:
    """The part of ``predict`` that compares a forward with reading its weights."""
    import torch

    from benchmarks.speed import predicting
    from policies.model.quantization import choose_device

    place = choose_device(device)
    torch.set_num_threads(threads)
    limits = {"79m": "at most 2.5"} if place.type == "cpu" else {"1.18b": "at most 1.6"}
    for name, limit in limits.items():
        for precision in ("bfloat16", "int8"):
            shown_limit = limit if precision == "bfloat16" else ""
            yield predicting.reading(
                name, device=place, precision=precision, limit=shown_limit, seconds=seconds
            )


def retrieval(seconds: float) -> Iterator[Comparison]:
    """Everything about acting by retrieval."""
    from benchmarks.speed import retrieving

    yield from retrieving.from_many_steps(seconds=seconds)


def jat(seconds: float, *, threads: int) -> Iterator[Comparison]:
    """JAT against the published inference loop, on a CPU."""
    import torch

    from benchmarks.speed.jat import against_the_published_loop

    torch.set_num_threads(threads)
    yield from against_the_published_loop(seconds=seconds)


def whole_runs() -> Iterator[Comparison]:
    """Everything about how a run's work is shared out."""
    from benchmarks.speed.scheduling import overhead, speedup

    levels = "go-to-local,open,pickup,unlock,synth,put-next-local,pickup-loc,go-to-obj"
    yield overhead("gato-mini", "babyai", None, rounds=1)
    yield overhead("expert", "babyai", levels)
    yield overhead("expert", "metaworld", "reach,door-open,push", episodes=5)
    yield speedup("gato-mini", "babyai", None, rounds=1)
    yield speedup("gato-mini", "babyai", levels, episodes=100, rounds=1)
    six = "reach,door-open,push,assembly,pick-place,drawer-open"
    yield speedup("expert", "metaworld", six, episodes=8, rounds=1)


def experts(seconds: float) -> Iterator[Comparison]:
    """Everything about the training of experts."""
    from benchmarks.speed import expert_training

    yield from expert_training.games(seconds=seconds)


def training(
    seconds: float, console: Console, *, device: str, threads: int, every: bool
) -> Iterator[Comparison]:
    """Everything about training."""
    import torch

    from benchmarks.speed import training as measures
    from policies.model.quantization import choose_device

    place = choose_device(device)
    torch.set_num_threads(threads)
    names = ("tiny", "mini") if place.type == "cpu" else ("mini", "79m", "364m")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            yield from measures.trainer_and_loader(
                name, Path(folder), device=place, seconds=seconds
            )
    for name in measures.sizes(place, every=every):
        with tempfile.TemporaryDirectory() as folder:
            yield measures.share_of_peak(name, Path(folder), device=place, seconds=seconds)
    with tempfile.TemporaryDirectory() as folder:
        yield from measures.shipped_shape(Path(folder), device=place, seconds=seconds)
    for name in () if every else PRESETS:
        if reason := measures.left_out(name, place):
            console.print(reason, highlight=False)


@dataclass(frozen=True)
class Speed(Command):
    """Measure ratios of speeds; both sides of each are measured in one run, in turns.

    Attributes:
        what: What is measured, by default all; shipped and reading are the beginning and the end
            of predict.
        seconds: Seconds for a way and round.
        device: Device of predict and train: cpu, cuda.
        all: Train those sizes too that take minutes a step here.
        threads: Threads of a CPU; more than one needs a machine with nothing else to do.
        output: Write the figures to a file as JSON too.
    """

    what: Positional[
        Literal[
            "tokenise",
            "predict",
            "shipped",
            "reading",
            "jat",
            "retrieve",
            "train",
            "experts",
            "schedule",
        ]
        | None
    ] = None
    seconds: float = 0.5
    device: str = "cpu"
    all: bool = False
    threads: int = 1
    output: Path | None = None

    def __post_init__(self) -> None:
        check_range(self, "threads", low=1, high=MOST_THREADS)
        check_range(self, "seconds", above=True)

    def run(self, call: Invocation) -> int:
        comparisons: list[Comparison] = []
        status, console = DONE, new_console()
        with one_thread():
            try:
                for comparison in itertools.chain.from_iterable(self._sources(console)):
                    comparisons.append(comparison)
                    console.print(f"{comparison.ratio:8.3f}  {comparison.name}", highlight=False)
            except KeyboardInterrupt:
                console.print("stopped; this was measured:")
                status = STOPPED
        console.print(table(comparisons))
        if self.output is not None:
            write_json(self.output, {"comparisons": [asdict(each) for each in comparisons]})
        return status

    def _sources(self, console: Console) -> Iterator[Iterator[Comparison]]:
        where: dict[str, Any] = {"device": self.device, "threads": self.threads}
        if self.what in (None, "tokenise"):
            yield token_space(self.seconds)
        if self.what in (None, "predict"):
            yield policy(self.seconds, **where)
        if self.what == "shipped":
            yield shipped(self.seconds, **where)
        if self.what == "reading":
            yield weights(self.seconds, **where)
        if self.what in (None, "jat"):
            yield jat(self.seconds, threads=self.threads)
        if self.what in (None, "retrieve"):
            yield retrieval(self.seconds)
        if self.what in (None, "train"):
            yield training(self.seconds, console, **where, every=self.all)
        if self.what in (None, "experts"):
            yield experts(self.seconds)
        if self.what in (None, "schedule"):
            yield whole_runs()


main = partial(run_command, Speed, prog="python -m benchmarks.speed")

if __name__ == "__main__":
    sys.exit(main())
