"""The command ``python -m benchmarks.speed [tokenise|predict|reading|train|experts|schedule]``."""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.speed.comparison import Comparison, table
from gato_gym.atomic_io import write_json
from policies.model.config import PRESETS
from policies.threads import one_thread


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description="Ratios of speeds; both sides of each are measured in one run, in turns.",
    )
    add = parser.add_argument
    what = ("tokenise", "predict", "reading", "train", "experts", "schedule")
    add("what", nargs="?", choices=what, help="default: all; reading is the end of predict")
    add("--seconds", type=float, default=0.5, help="a way and round (default: %(default)s)")
    add("--device", default="cpu", help="of predict and train: cpu, cuda (default: cpu)")
    add("--all", action="store_true", help="train: sizes too that take minutes a step here")
    add(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="of a CPU; more than one needs a machine with nothing else to do (default: 1)",
    )
    add("--output", type=Path, metavar="FILE", help="write the figures as JSON too")
    return parser.parse_args(arguments)


def token_space(seconds: float) -> Iterator[Comparison]:
    """Everything about the token space."""
    from benchmarks.speed import tokenising

    for measure in (tokenising.stepping, tokenising.copying, tokenising.tokenising):
        yield from measure(seconds=seconds)
    yield from tokenising.importing()


def policy(seconds: float, *, device: str, threads: int) -> Iterator[Comparison]:
    """Everything about a network policy."""
    import torch

    from benchmarks.speed import predicting
    from policies.model.quantization import choose_device

    place = choose_device(device)
    torch.set_num_threads(threads)
    yield from predicting.shipped_network("gato-mini", device=place, seconds=seconds)
    yield from predicting.large_network("79m", device=place, seconds=seconds)
    yield from weights(seconds, device=device, threads=threads)


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
            asked = limit if precision == "bfloat16" else ""
            yield predicting.reading(
                name, device=place, precision=precision, limit=asked, seconds=seconds
            )


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
    for name in () if every else PRESETS:
        if reason := measures.left_out(name, place):
            console.print(reason, highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = parse_arguments(arguments)
    comparisons: list[Comparison] = []
    status, console = 0, Console()
    if args.threads < 1:
        print(f"--threads is {args.threads}: expected 1 or more", file=sys.stderr)
        return 2
    with one_thread():
        sources = []
        where: dict[str, Any] = {"device": args.device, "threads": args.threads}
        if args.what in (None, "tokenise"):
            sources.append(token_space(args.seconds))
        if args.what in (None, "predict"):
            sources.append(policy(args.seconds, **where))
        if args.what == "reading":
            sources.append(weights(args.seconds, **where))
        if args.what in (None, "train"):
            sources.append(training(args.seconds, console, **where, every=args.all))
        if args.what in (None, "experts"):
            sources.append(experts(args.seconds))
        if args.what in (None, "schedule"):
            sources.append(whole_runs())
        try:
            for comparison in itertools.chain.from_iterable(sources):
                comparisons.append(comparison)
                console.print(f"{comparison.ratio:8.3f}  {comparison.name}", highlight=False)
        except ValueError as error:  # no such device
            print(error, file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            console.print("stopped; this was measured:")
            status = 130
    console.print(table(comparisons))
    if args.output is not None:
        write_json(args.output, {"comparisons": [asdict(each) for each in comparisons]})
    return status


if __name__ == "__main__":
    sys.exit(main())
