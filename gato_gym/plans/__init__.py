"""What a plan is compiled of; :mod:`gato_gym.spaces` puts it together.

* :mod:`~gato_gym.plans.parts` -- one part: its path, its space, what is refused.
* :mod:`~gato_gym.plans.observations` -- the parts of an observation space, and their readers.
* :mod:`~gato_gym.plans.readers`, :mod:`~gato_gym.plans.photographs` -- how a part is read.
* :mod:`~gato_gym.plans.scaling` -- numbers as one vector, in patches.
* :mod:`~gato_gym.plans.joining` -- parts of one kind as one array.
* :mod:`~gato_gym.plans.arrangement` -- which token each contribution goes to.
* :mod:`~gato_gym.plans.restoring` -- from an encoded observation back.
* :mod:`~gato_gym.plans.action_tokens`, :mod:`~gato_gym.plans.space_codecs`,
  :mod:`~gato_gym.plans.composite_codecs` -- actions as tokens.
* :mod:`~gato_gym.plans.codecs` -- numbers as bins and digits.
* :mod:`~gato_gym.plans.bounds` -- what the numbers of a space may be.
* :mod:`~gato_gym.plans.tokenized` -- encoded observations.
"""
