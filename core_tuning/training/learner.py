"""What is trained: image encoder, classifier and objective, and how it is exported."""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from core_tuning.encoders import ImageEncoder, classifier_name


class Learner(nn.Module):
    """An image encoder, a linear classifier without bias, and the objective that trains them.

    Args:
        image_encoder: images (n, 3, h, w) in [0, 1] to features (n, d).
        classifier: features (n, d) to logits (n, K).
        objective: one of `core_tuning.objectives`, with its projection head.
    """

    def __init__(
        self, image_encoder: ImageEncoder, classifier: nn.Linear, objective: nn.Module
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.classifier = classifier
        self.objective = objective

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (n, 3, h, w) in [0, 1]: logits (n, K)."""
        return self.classifier(self.image_encoder(images))

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

    def load_exported(self, tensors: dict[str, Tensor]) -> None:
        """Load tensors that `exported` made, all of them."""
        name = classifier_name(self.image_encoder.encoder)
        tensors = dict(tensors)
        tensors.pop(f"{name}.bias")
        self.classifier.load_state_dict({"weight": tensors.pop(f"{name}.weight")})
        self.image_encoder.encoder.load_state_dict(tensors)
