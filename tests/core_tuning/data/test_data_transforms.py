import numpy as np
import pytest
import torch
from PIL import Image

from core_tuning.data import DATASETS, RECIPES, build_transforms, default_recipe
from core_tuning.errors import UserError


def _image(width=70, height=50):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("recipe", "side"), [("imagenet", 224), ("cifar", 256), ("small", 48)])
def test_tensors_of_the_recipes(recipe, side):
    for image_size, expected in ((None, side), (32, 32)):
        for transform in build_transforms(recipe, image_size):
            tensor = transform(_image())
            assert type(tensor) is torch.Tensor
            assert (tensor.shape, tensor.dtype) == ((3, expected, expected), torch.float32)
            assert tensor.min() >= 0 and tensor.max() <= 1


@pytest.mark.parametrize("recipe", RECIPES)
def test_evaluation_draws_no_random_numbers(recipe):
    evaluate = build_transforms(recipe, 16).evaluate
    state = torch.random.get_rng_state()
    assert torch.equal(evaluate(_image()), evaluate(_image()))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_training_is_random():
    train = build_transforms("small").train
    assert not torch.equal(train(_image()), train(_image()))


def test_evaluation_keeps_an_image_of_the_right_size():
    image = _image(48, 48)
    expected = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255
    assert torch.allclose(build_transforms("small").evaluate(image), expected)


def test_unknown_recipe():
    with pytest.raises(UserError, match=r"recipe is 'cifer': expected one of imagenet, cifar"):
        build_transforms("cifer")


def test_image_size_out_of_range():
    with pytest.raises(UserError, match="--image-size is 0: expected at least 1"):
        build_transforms("small", 0)


def test_every_data_set_has_a_recipe():
    # DomainBed's is for its own data sets, which are no splits of training and test images.
    assert {default_recipe(name) for name in DATASETS} == set(RECIPES) - {"domainbed"}
    assert default_recipe("emoji_domains") == "small"
    assert default_recipe("aircraft") == "cifar"
