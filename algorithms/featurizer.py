"""A pre-trained encoder in the place of DomainBed's networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from core_tuning.checkpoints.sources import EMBEDDED, RANDOM, default_encoder, load_image_encoder
from core_tuning.encoders import IMAGENET_MEAN, IMAGENET_STD, feature_dim, split_heads
from core_tuning.errors import UserError
from core_tuning.training.learner import keep_statistics


class PretrainedFeaturizer(nn.Module):
    """An encoder from a checkpoint and dropout; DomainBed's own algorithms can use it too.

    Args:
        encoder: a name that `build_encoder` knows.
        checkpoint: path of a checkpoint, "embedded" or "random".
        dropout: probability with which a feature is dropped in training.
        freeze_bn: whether batch norm keeps its running statistics in training.
        image_size: (h, w) of the images, which are tried at once; by default any that fit.

    Raises:
        UserError: the encoder is unknown or does not take images of that size, or the checkpoint
            cannot be read or does not fit it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: str,
        checkpoint: str,
        *,
        dropout: float,
        freeze_bn: bool,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.image_encoder, origin = load_image_encoder(encoder, checkpoint)
        if checkpoint not in (EMBEDDED, RANDOM):
            # Here, because every route from a file of the user's comes by.
            print(f"{checkpoint}: {origin}")
        self.n_outputs = feature_dim(
            self.image_encoder.encoder, image_size, trained=checkpoint != RANDOM
        )
        self.dropout = nn.Dropout(dropout)
        self.freeze_bn = freeze_bn
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        self.train()

    def state_heads(self, hparams: Mapping[str, Any]) -> None:
        """Name the encoder with its attention heads where the checkpoint's format decided on them.

        DomainBed's train.py stores the hyper-parameters that it passes beside the weights, which
        do not show the heads, and the same encoder can be built again from both.
        """
        name = self.image_encoder.name
        if isinstance(hparams, dict) and split_heads(name)[1] is not None:
            hparams["encoder"] = name

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
            keep_statistics(self.image_encoder)
        return self


class StartingPoint(PretrainedFeaturizer):
    """Stands in for DomainBed's ResNet, so that its algorithms start where Core-tuning does.

    Args:
        input_shape: (3, h, w) of the images.
        hparams: `checkpoint`; `encoder`, by default the one that belongs to the checkpoint;
            `freeze_bn` and `resnet_dropout`, as DomainBed's own networks read them.

    Raises:
        UserError: the checkpoint cannot be read or does not fit, or images are not RGB.
    """

    def __init__(self, input_shape: Sequence[int], hparams: Mapping[str, Any]) -> None:
        if input_shape[0] != 3:
            raise UserError(
                f"The hyper-parameter checkpoint needs images of 3 channels, and these have "
                f"{input_shape[0]}: leave it out for this algorithm and data set."
            )
        checkpoint = hparams["checkpoint"]
        super().__init__(
            hparams.get("encoder") or default_encoder(checkpoint),
            checkpoint,
            dropout=hparams["resnet_dropout"],
            freeze_bn=bool(hparams["freeze_bn"]),
            image_size=(input_shape[1], input_shape[2]),
        )
        self.state_heads(hparams)
        # URM replaces it.
        self.activation: nn.Module = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Features (n, n_outputs) of images (n, 3, h, w) as DomainBed normalises them."""
        return self.activation(super().forward(images))
