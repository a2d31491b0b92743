"""Gato: observations to tokens to actions, prompts, checkpoints."""
