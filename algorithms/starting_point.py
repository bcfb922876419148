"""Lets DomainBed's own algorithms start from a self-supervised checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from core_tuning.errors import UserError
from core_tuning.pretrained import default_encoder

from .featurizer import PretrainedFeaturizer


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
