"""Which episodes are good enough to learn from.

* :func:`windowed_return` -- the expert's return as Gato's authors define it.
* :func:`least_return` -- what an episode must reach.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

LONGEST_WINDOW = 1000


def windowed_return(returns: ArrayLike) -> float:
    """The largest mean of W consecutive returns, W = min(1000, N / 10) of N episodes, at least 1.

    This is the expert's return in arXiv 2205.06175, section 5.2: an agent that was recorded while
    it learned is judged by its best stretch.

    Args:
        returns: ``[N]``, in the order in which the episodes were played.

    Raises:
        ValueError: There is no episode, or a return is no finite number.

    Example:
        >>> windowed_return([0, 1, 2, 9, 3, 0, 0, 0, 0, 0])  # ten episodes: W is 1
        9.0
    """
    values = np.asarray(returns, np.float64).reshape(-1)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(
            f"returns are {values}: expected at least one, all finite; look at "
            "the dataset's rewards"
        )
    window = max(1, min(LONGEST_WINDOW, len(values) // 10))
    sums = np.cumsum(np.r_[0.0, values])
    return float(((sums[window:] - sums[:-window]) / window).max())


def least_return(expert_return: float, share: float) -> float:
    """What an episode must return to have ``share`` of the expert's.

    Where the expert's return is below zero, the room beneath it is as large: at a share of 0.8,
    80 for an expert of 100, and -120 for one of -100.

    Args:
        expert_return: The expert's.
        share: In [0, 1]; 0.8 as published.

    Raises:
        ValueError: ``share`` is outside [0, 1].

    Example:
        >>> least_return(100, 0.75), least_return(-100, 0.75)
        (75.0, -125.0)
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}: expected 0 to 1, such as 0.8")
    return float(expert_return - (1 - share) * abs(expert_return))
