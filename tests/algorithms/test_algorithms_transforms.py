"""DomainBed's transforms, for any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from core_tuning.algorithms.emoji_dataset import domain_transforms

NORMALISE = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.fixture
def image():
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.mark.parametrize("size", [32, 224])
def test_the_plain_transform_squeezes_the_whole_image(image, size):
    squeezed = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)) / 255
    expected = (squeezed - NORMALISE[0]) / NORMALISE[1]
    found = domain_transforms(size).evaluate(image)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("size", [32, 224])
def test_the_augmenting_transform_draws_as_domainbeds_does(image, size):
    theirs = [
        transforms.RandomResizedCrop(size, scale=(0.7, 1.0)),
        transforms.RandomHorizontalFlip(),
        transforms.ColorJitter(0.3, 0.3, 0.3, 0.3),
        transforms.RandomGrayscale(),
        transforms.ToTensor(),
        transforms.Normalize(*NORMALISE),
    ]
    drawn = []
    for seed in range(5):
        torch.manual_seed(seed)
        expected = image
        for step in theirs:
            expected = step(expected)
        torch.manual_seed(seed)
        drawn.append(domain_transforms(size).train(image))
        # Up to the rounding of a division by 255.
        torch.testing.assert_close(drawn[-1], expected, rtol=0, atol=1e-6)
    assert not torch.equal(drawn[0], drawn[1])
