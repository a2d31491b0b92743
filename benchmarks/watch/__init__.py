"""Episodes to look at, each action's tokens beside the frame: ``python -m benchmarks.watch``.

* :class:`WatchSettings`, :func:`watch` -- play episodes, in a window or into a file.
* :mod:`benchmarks.watch.scene` -- what is shown of a timestep, :mod:`benchmarks.watch.drawing` --
  how, :mod:`benchmarks.watch.screens` -- where.
"""

from benchmarks.watch.playing import WatchSettings, watch

__all__ = ["WatchSettings", "watch"]
