"""How good a policy is, and how fast.

* ``python -m benchmarks.run`` -- score policies on a suite of tasks (:mod:`benchmarks.run`).
* ``python -m benchmarks.rules`` -- the protocol in words.
* ``python -m benchmarks.compare`` -- what changed from one run to another.
* ``python -m benchmarks.report.html`` -- a recorded run as a web page.
* ``python -m benchmarks.experts`` -- measure random and expert play.
* ``python -m benchmarks.speed`` -- ratios of speeds, measured side by side.
"""
