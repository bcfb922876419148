"""Checkpoints of self-supervised methods: read, recognised by their keys, and loaded."""
