"""Training of the experts: ``gato-gym expert train TASK``; needs Stable-Baselines3.

* :mod:`policies.expert_training.recipes` -- the hyperparameters.
* :mod:`policies.expert_training.trainer` -- one training, resumable.
* :mod:`policies.expert_training.sb3.convert` -- Stable-Baselines3's algorithms as experts.
"""
