"""Core-tuning: contrast-regularised fine-tuning of self-supervised visual models."""

__version__ = "0.1.0"
