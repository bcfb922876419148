"""A pre-trained encoder in the place of DomainBed's networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core_tuning.encoders import IMAGENET_MEAN, IMAGENET_STD, feature_dim
from core_tuning.pretrained import load_image_encoder

BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class PretrainedFeaturizer(nn.Module):
    """An encoder from a checkpoint and dropout; DomainBed's own algorithms can use it too.

    Args:
        encoder: a name that `build_encoder` knows.
        checkpoint: path of a checkpoint, "embedded" or "random".
        dropout: probability with which a feature is dropped in training.
        freeze_bn: whether batch norm keeps its running statistics in training.

    Raises:
        UserError: the encoder is unknown, or the checkpoint cannot be read or does not fit it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: str, checkpoint: str, *, dropout: float, freeze_bn: bool) -> None:
        super().__init__()
        self.image_encoder, _ = load_image_encoder(encoder, checkpoint)
        self.n_outputs = feature_dim(self.image_encoder.encoder)
        self.dropout = nn.Dropout(dropout)
        self.freeze_bn = freeze_bn
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """Features (n, n_outputs) of images (n, 3, h, w) as DomainBed normalises them.

        That is by ImageNet's mean and standard deviation, whatever the checkpoint was
        pre-trained with.
        """
        return self.encode(images * self.std + self.mean)

    def encode(self, images: Tensor) -> Tensor:
        """Features (n, n_outputs) of images (n, 3, h, w) in [0, 1]."""
        return self.dropout(self.image_encoder(images))

    def train(self, mode: bool = True) -> PretrainedFeaturizer:
        """Set the mode; batch norm that is frozen keeps its statistics."""
        super().train(mode)
        if self.freeze_bn:
            for module in self.image_encoder.modules():
                if isinstance(module, BATCH_NORM):
                    module.eval()
        return self
