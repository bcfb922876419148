"""Folding batch norm: exact where it is done, not done where it would be wrong."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from core_tuning.encoders import SmallResNet
from core_tuning.robustness.attack.folding import find_pairs
from core_tuning.robustness.attack.view import AttackView

from ..conftest import randomise_norms


def resnet(name, **options):
    return torchvision.models.get_model(name, weights=None, num_classes=5, **options)


MODELS = {
    "small_resnet": lambda: SmallResNet(),
    "resnet18": lambda: resnet("resnet18"),
    "resnet50": lambda: torchvision.models.ResNet(
        torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=5
    ),
    "timm": lambda: timm.create_model("resnet10t", num_classes=5),
    "vit": lambda: timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=32, depth=2),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_folded_equals_unfolded(name, dtype, bound):
    torch.manual_seed(0)
    model = randomise_norms(MODELS[name]()).to(dtype).eval()
    images = torch.rand(2, 3, 32, 32, dtype=dtype)
    with torch.no_grad():
        expected = model(images)
        view = AttackView(model)
        folded = view(images)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert len(find_pairs(model)) == norms
    assert not any(isinstance(module, nn.BatchNorm2d) for module in view.modules())
    assert (norms > 0) == (name != "vit")
    assert (folded - expected).abs().max() <= bound * expected.abs().max()


class Traced(nn.Module):
    """Parts from which the cases below are made."""

    def __init__(self, **options):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3, **options)


class Branch(Traced):
    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


class ConvTwice(Traced):
    def forward(self, x):
        return self.norm(self.conv(self.conv(x)))


class NormTwice(Traced):
    def forward(self, x):
        return self.norm(self.norm(self.conv(x)))


class WeightElsewhere(Traced):
    def forward(self, x):
        return self.norm(self.conv(x)) + self.conv.weight.sum()


class Plain(Traced):
    def forward(self, x):
        return self.norm(self.conv(x))


class Subclass(Plain):
    def __init__(self):
        super().__init__()

        class Half(nn.BatchNorm2d):
            __module__ = "torch.nn.half"  # which tracing does not look into

            def forward(self, x):
                return super().forward(x) / 2

        self.norm = Half(3)


class DataDependent(nn.Module):
    """Cannot be traced: its children are."""

    def __init__(self, *children, again=None):
        super().__init__()
        self.parts = nn.ModuleList(children)
        self.again = again

    def forward(self, x):
        if x.sum() > -1e9:
            for part in self.parts:
                x = part(x)
        return x if self.again is None else self.again(x)


def hooked():
    model = Plain()
    model.conv.register_forward_hook(lambda module, args, output: output * 2)
    return model


def shared(name):
    part = Plain()
    return DataDependent(part, again=part.get_submodule(name))


CASES = {
    "plain": (Plain, 1),
    "no affine": (lambda: Plain(affine=False), 1),
    "child by child": (lambda: DataDependent(Plain(), DataDependent(Plain())), 2),
    "sequential": (lambda: nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3)), 1),
    "branch": (Branch, 0),
    "convolution twice": (ConvTwice, 0),
    "norm twice": (NormTwice, 0),
    "weight elsewhere": (WeightElsewhere, 0),
    "subclass": (Subclass, 0),
    "no statistics": (lambda: Plain(track_running_stats=False), 0),
    "hook": (hooked, 0),
    "convolution shared with an untraced parent": (lambda: shared("conv"), 0),
    "norm shared with an untraced parent": (lambda: shared("norm"), 0),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_folded(name):
    torch.manual_seed(0)
    build, pairs = CASES[name]
    model = randomise_norms(build()).double().eval()
    images = torch.rand(4, 3, 5, 5, dtype=torch.float64)
    view = AttackView(model)
    assert len(find_pairs(model)) == pairs
    left = sum(isinstance(module, nn.BatchNorm2d) for module in view.modules())
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert norms - left == pairs
    torch.testing.assert_close(view(images), model(images), rtol=0, atol=1e-10)
