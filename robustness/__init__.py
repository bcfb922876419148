"""Adversarial fine-tuning, and an evaluation of robustness that does not mislead.

Nothing is imported here, so that the command line answers at once.
"""
