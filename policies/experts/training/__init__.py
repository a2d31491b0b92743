"""Training of the experts: ``gato-gym expert train TASK``; needs Stable-Baselines3.

* :mod:`policies.experts.training.recipes` -- the hyperparameters.
* :mod:`policies.experts.training.trainer` -- one training, resumable.
* :mod:`policies.experts.training.convert` -- Stable-Baselines3's algorithms as experts.
"""
