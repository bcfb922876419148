"""Training that diverges: one sentence, and no checkpoint that holds NaN."""

from __future__ import annotations

import re

import pytest
import torch

NAN = (
    "--fraction", 0.1, "--image-size", 16, "--batch-size", 16, "--epochs", 3, "--workers", 0,
)  # fmt: skip


@pytest.mark.parametrize("method", ["ce", "core_tuning"])
def test_a_loss_that_becomes_nan(kit, capsys, place, method):
    """Provoked for real; whatever checkpoint is left can be read, and holds no NaN."""
    sentence = kit.run_bad(
        capsys, "finetune", *NAN, "--method", method, "--lr", 1e30, "--checkpoint-minutes", 0,
        "--output", place.output, after_progress=True,
    )  # fmt: skip
    step = int(re.search(r"not finite at step (\d+)", sentence).group(1))
    assert "1e+30" in sentence
    assert step > 1
    state = torch.load(place.output / "checkpoint.pt", weights_only=True)
    assert 0 < state["step"] < step
    for tensor in (*state["image_encoder"].values(), *state["classifier"].values()):
        assert torch.isfinite(tensor).all()
    assert not (place.output / "result.json").exists()


def test_a_learning_rate_beyond_float32(kit, capsys, place):
    """Nothing but a larger number than the other one, and torch refuses it by an exception."""
    sentence = kit.run_bad(
        capsys, "finetune", *NAN, "--method", "ce", "--lr", 1e39, "--output", place.output,
        after_progress=True,
    )  # fmt: skip
    assert "lr" in sentence
