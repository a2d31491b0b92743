"""Ratios of speeds, both sides measured in one run: ``python -m benchmarks.speed``.

* :mod:`benchmarks.speed.comparison` -- two ways to do the same work, timed in turn.
* :mod:`benchmarks.speed.tokenising` -- the token space.
* :mod:`benchmarks.speed.acting` -- the shipped network as it acts.
* :mod:`benchmarks.speed.predicting` -- a network policy with memory.
* :mod:`benchmarks.speed.retrieving` -- acting by retrieval.
* :mod:`benchmarks.speed.training`, :mod:`benchmarks.speed.expert_training` -- training.
* :mod:`benchmarks.speed.scheduling` -- how a run's work is shared out.
* :mod:`benchmarks.speed.gpu` -- a GPU, correctness first.
"""
