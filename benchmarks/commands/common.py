"""What the commands of studies share.

* :func:`add_common` -- their flags.
* :func:`study_settings` -- the arguments of their settings.
"""

from __future__ import annotations

import argparse
from typing import Any


def add_common(add: Any) -> None:
    """Add the flags that every study has, by a parser's ``add_argument``."""
    add("--keep", type=float, default=0.8, help="least share of the expert's return; 0: all")
    add("--rows", type=int, default=8, help="packed sequences of a batch (default: 8)")
    add("--length", type=int, default=256, help="tokens of a sequence (default: 256)")
    add("--device", default="auto", help="cpu, cuda (default: auto)")
    add("--threads", type=int, help="of a CPU (default: all cores)")


def study_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of a study's settings, after setting the threads."""
    if args.threads is not None:
        import torch

        torch.set_num_threads(args.threads)
    given = {k: v for k, v in vars(args).items() if k not in ("command", "run", "threads")}
    datasets = tuple(given.pop("dataset"))
    return {**given, "datasets": datasets}
