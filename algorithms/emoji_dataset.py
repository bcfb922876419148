"""The embedded emoji_domains as a data set of DomainBed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import pil_loader
from torchvision.transforms import v2

from core_tuning.data import Transforms, build_transforms
from core_tuning.data.embedded import emoji_domains_folder
from core_tuning.encoders import IMAGENET_MEAN, IMAGENET_STD

from .environments import EMOJI_SIZE

# A constant, so that nothing is unpacked where DomainBed is merely imported.
EMOJI_ENVIRONMENTS = ("fluent", "mono", "noto", "twemoji")


def domain_transforms(size: int) -> Transforms:
    """Transforms to images (3, size, size), normalised by ImageNet's mean and deviation.

    A seed draws the same crops, flips and colours as in DomainBed.
    """
    recipe = build_transforms("domainbed", size)
    normalise = v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)
    return Transforms(
        v2.Compose([recipe.train, normalise]), v2.Compose([recipe.evaluate, normalise])
    )


def emoji_domains_class(base: Any) -> type:
    """Make the class EmojiDomains out of DomainBed's MultipleDomainDataset."""

    class EmojiDomains(base):
        """Emoji of ten classes drawn by four vendors, each vendor a domain, at 32x32 pixels.

        Args:
            root: DomainBed's --data_dir; not used, because the images ship with Core-tuning.
            test_envs: domains that are never augmented.
            hparams: of which data_augmentation is read.
        """

        ENVIRONMENTS: ClassVar[list[str]] = list(EMOJI_ENVIRONMENTS)
        INPUT_SHAPE = (3, EMOJI_SIZE, EMOJI_SIZE)
        N_STEPS = 5001
        CHECKPOINT_FREQ = 300
        # Each of DomainBed's eleven loaders starts this many processes; images this small keep
        # one busy enough.
        N_WORKERS = 1

        def __init__(
            self, root: str | None, test_envs: Sequence[int], hparams: Mapping[str, Any]
        ) -> None:
            super().__init__()
            folder = emoji_domains_folder()
            transforms = domain_transforms(EMOJI_SIZE)
            self.datasets = [
                ImageFolder(
                    str(folder / domain),
                    transform=transforms.train
                    if hparams["data_augmentation"] and index not in test_envs
                    else transforms.evaluate,
                    loader=pil_loader,
                )
                for index, domain in enumerate(self.ENVIRONMENTS)
            ]
            self.input_shape = self.INPUT_SHAPE
            self.num_classes = len(self.datasets[-1].classes)

    # What DomainBed's own tables and messages call it.
    EmojiDomains.__qualname__ = EmojiDomains.__name__
    return EmojiDomains
