"""What is trained: image encoder, classifier and objective, and how it is exported."""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from core_tuning.checkpoints.read import METADATA_KEY
from core_tuning.encoders import ImageEncoder, classifier_name

BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def keep_statistics(module: nn.Module) -> None:
    """Let batch norm use its running statistics, and keep them as they are."""
    for each in module.modules():
        if isinstance(each, BATCH_NORM):
            each.eval()


class Learner(nn.Module):
    """An image encoder, a linear classifier without bias, and the objective that trains them.

    Args:
        image_encoder: images (n, 3, h, w) in [0, 1] to features (n, d).
        classifier: features (n, d) to logits (n, K).
        objective: that of a method, with its projection head.
        dropout: probability with which a feature is dropped in training.
        freeze_bn: whether batch norm keeps its running statistics in training.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        classifier: nn.Linear,
        objective: nn.Module,
        *,
        dropout: float = 0.0,
        freeze_bn: bool = False,
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.dropout = nn.Dropout(dropout)
        self.classifier = classifier
        self.objective = objective
        self.freeze_bn = freeze_bn

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (n, 3, h, w) in [0, 1]: logits (n, K)."""
        return self.classifier(self.dropout(self.image_encoder(images)))

    def train(self, mode: bool = True) -> Learner:
        """Set the mode; batch norm that is frozen keeps its statistics."""
        super().train(mode)
        if self.freeze_bn:
            keep_statistics(self.image_encoder)
        return self

    def exported(self) -> dict[str, Tensor]:
        """Encoder and classifier under the names of torchvision or timm.

        Those libraries' classifiers have a bias: it is exported as zeros, so that the file loads
        with strict=True.
        """
        tensors = dict(self.image_encoder.encoder.state_dict())
        name = classifier_name(self.image_encoder.encoder)
        weight = self.classifier.weight
        tensors[f"{name}.weight"] = weight
        tensors[f"{name}.bias"] = torch.zeros(weight.shape[0])
        return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}

    def export(self, facts: dict[str, Any]) -> bytes:
        """Serialise `exported()` as safetensors, `facts` as JSON in its metadata."""
        return save(self.exported(), metadata={"core_tuning": json.dumps(facts)})

    def load_exported(self, tensors: dict[str, Any]) -> None:
        """Load all tensors that `exported` made, with or without the facts of their file."""
        name = classifier_name(self.image_encoder.encoder)
        tensors = {key: value for key, value in tensors.items() if key != METADATA_KEY}
        tensors.pop(f"{name}.bias")
        self.classifier.load_state_dict({"weight": tensors.pop(f"{name}.weight")})
        self.image_encoder.encoder.load_state_dict(tensors)
