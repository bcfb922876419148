"""The attack's view: modes, refresh, gradients, precision, cost."""

import contextlib
import copy
import functools
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from core_tuning.encoders import ImageEncoder, SmallResNet
from core_tuning.errors import UserError
from core_tuning.objectives import CoreTuningLoss, CrossEntropyLoss
from core_tuning.robustness.attack.pgd import perturb
from core_tuning.robustness.attack.view import AttackView
from core_tuning.robustness.budgets import make_budget
from core_tuning.training.learner import Learner

from ..conftest import randomise_norms


def input_gradient(view, images, labels):
    images = images.clone().requires_grad_()
    logits = view(images)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels), images)
    return logits, gradient


def test_the_model_is_left_alone(small_model, batch):
    small_model[0].encoder.bn1.eval()  # a frozen batch norm
    before = copy.deepcopy(small_model.state_dict())
    modes = [module.training for module in small_model.modules()]
    view = AttackView(small_model)
    view.train()
    assert not any(module.training for module in view.modules())
    assert not any(parameter.requires_grad for parameter in view.parameters())
    input_gradient(view, *batch())
    assert [module.training for module in small_model.modules()] == modes
    assert all(parameter.requires_grad for parameter in small_model.parameters())
    assert all(parameter.grad is None for parameter in small_model.parameters())
    for name, tensor in small_model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_objective_is_not_copied(small_model):
    learner = Learner(small_model[0], small_model[1], CoreTuningLoss(8, 4))
    view = AttackView(learner)
    objective = sum(p.numel() for p in learner.objective.parameters())
    assert objective > 0
    assert sum(p.numel() for p in view.parameters()) < objective


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_refresh_equals_a_new_view(small_model, batch, precision):
    images, _ = batch()
    view = AttackView(small_model, precision=precision)
    addresses = [tensor.data_ptr() for tensor in view.parameters()]
    stale = view(images)
    optimizer = torch.optim.SGD(small_model.parameters(), lr=0.5)
    small_model(images).square().sum().backward()  # batch norms take in the batch
    optimizer.step()
    assert torch.equal(view(images), stale)
    view.refresh()
    fresh = AttackView(small_model, precision=precision)(images)
    assert torch.equal(view(images), fresh)
    assert not torch.allclose(stale, fresh)
    assert [tensor.data_ptr() for tensor in view.parameters()] == addresses


def test_refresh_after_weights_were_replaced(small_model, batch):
    images, _ = batch()
    view = AttackView(small_model)
    state = {name: tensor * 1.5 for name, tensor in small_model.state_dict().items()}
    small_model.load_state_dict(state, assign=True)
    view.refresh()
    assert torch.equal(view(images), AttackView(small_model)(images))


@pytest.mark.parametrize("channels_last_images", [True, False])
def test_the_gradient_is_contiguous_float32(small_model, batch, channels_last_images):
    images, labels = batch()
    _, expected = input_gradient(copy.deepcopy(small_model).eval(), images, labels)
    if channels_last_images:
        images = images.contiguous(memory_format=torch.channels_last)
    for precision, bound in (("fp32", 1e-5), ("bf16", 0.1)):
        logits, gradient = input_gradient(
            AttackView(small_model, precision=precision), images, labels
        )
        assert logits.dtype == gradient.dtype == torch.float32
        assert gradient.is_contiguous()
        assert (gradient - expected).norm() <= bound * expected.norm()


def test_fp32_stays_so_under_autocast(small_model, batch):
    images, _ = batch()
    view = AttackView(small_model)
    with torch.autocast("cpu", torch.bfloat16):
        inside = view(images)
    assert torch.equal(inside, view(images))


def test_unknown_precision(small_model):
    with pytest.raises(UserError, match="'fp8': expected one of fp32, bf16, fp16"):
        AttackView(small_model, precision="fp8")


class Confident(nn.Module):
    """Margins of 8 from float16 activations, as a network under autocast has them."""

    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, images):
        x = images.half().flatten(1)
        # The pooling of many pixels is what makes the gradients of each of them small.
        return torch.stack([x.mean(1) * 0 + 8, x.mean(1) * self.gain.half()], 1)


def test_fp16_gradients_do_not_underflow(batch):
    images, _ = batch(64, side=24)
    labels = torch.zeros(64, dtype=torch.long)
    _, lost = input_gradient(Confident(), images, labels)
    view = AttackView(Confident(), precision="fp16")
    _, gradient = input_gradient(view, images, labels)
    assert (lost == 0).all()
    assert view.zero_gradient_share() == 0
    # (1 - p) / n / (3 * 24 * 24), up to the rounding of float16
    exact = F.softmax(view(images), 1)[:, 1] / 64 / (3 * 24 * 24)
    torch.testing.assert_close(gradient.mean((1, 2, 3)), exact, rtol=0.02, atol=0)


def test_fp16_overflow_is_zeroed_counted_and_answered(batch):
    images, _ = batch(4, side=2)
    images[1:] = 0
    labels = torch.tensor([0, 0, 0, 0])

    class Steep(nn.Module):
        def forward(self, images):
            x = images.half()
            # float16's largest number is 65504: sums of squares have gradients of the input
            return torch.stack([x.flatten(1)[:, 0] * 0, x.square().sum((1, 2, 3)) * 200], 1)

    view = AttackView(nn.Sequential(Steep(), nn.Identity()), precision="fp16")
    scales = []
    for _ in range(12):
        view.begin_count()
        scales.append(view.loss_scale)
        _, gradient = input_gradient(view, images, labels)
        assert gradient.isfinite().all()
        assert view.zero_gradient_share() in (0.75, 1.0)
    assert scales[1] == scales[0] / 2
    assert scales[-1] == scales[-2]
    assert gradient[0].abs().max() > 0


def test_zero_and_broken_gradients_are_counted(batch):
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.slope = nn.Parameter(torch.tensor([0.0, 1.0, float("nan"), 1.0]))

        def forward(self, images):
            x = images.flatten(1)[:, :4]
            return x + (self.slope.detach()[:, None] - 1) * x

    images, labels = batch(4)
    view = AttackView(Gate())
    assert view.zero_gradient_share() == 0
    for _ in range(2):
        _, gradient = input_gradient(view, images, labels)
    share = view.zero_gradient_share()
    assert share.shape == () and share == 0.5
    assert gradient.isfinite().all() and (gradient[1] != 0).any()
    with torch.no_grad():
        view(images)
    assert view.zero_gradient_share() == 0.5
    view.begin_count()
    assert view.zero_gradient_share() == 0


def test_compiled_code_survives_a_refresh(small_model, batch, monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compile_with = functools.partialmethod(nn.Module.compile, backend=backend)
    monkeypatch.setattr(nn.Module, "compile", compile_with)
    torch._dynamo.reset()
    images, labels = batch()
    view = AttackView(small_model, compile=True)
    input_gradient(view, images, labels)
    compiled = len(graphs)
    with torch.no_grad():
        small_model[1].weight *= 2
    view.refresh()
    logits, _ = input_gradient(view, images, labels)
    assert compiled == len(graphs) >= 1
    expected, _ = input_gradient(AttackView(small_model), images, labels)
    torch.testing.assert_close(logits, expected)


class NoModules(contextlib.nullcontext):
    parents: ClassVar = {"Global"}


def test_a_step_costs_26_forward_passes():
    """PGD-10 is 20 F; training on the joined halves 6 F, less the first layer's input gradient."""
    torch.manual_seed(0)
    n, side = 4, 32
    learner = Learner(
        ImageEncoder(randomise_norms(SmallResNet())),
        nn.Linear(128, 10, bias=False),
        CrossEntropyLoss(),
    )
    images, labels = torch.rand(n, 3, side, side), torch.arange(n)
    view = AttackView(learner)

    def flops(function):
        counter = FlopCounterMode(display=False)
        # What tells modules apart hooks into the leaves that torchattacks differentiates by.
        counter.mod_tracker = NoModules()
        with counter:
            result = function()
        return counter.get_total_flops(), result

    def train(adversarial):
        features = learner.image_encoder(torch.cat([images, adversarial]))
        learner.objective(features, labels.repeat(2), learner.classifier).total.backward()

    forward, _ = flops(lambda: learner(images))
    budget = make_budget("linf", 8 / 255)
    attack, adversarial = flops(lambda: perturb(view, images, labels, budget, seed=0))
    training, _ = flops(lambda: train(adversarial))
    first = 2 * n * 16 * (side // 2) ** 2 * 3 * 9
    assert attack == 20 * forward
    assert training == 6 * forward - 2 * first
    assert 25.5 * forward <= attack + training <= 26.1 * forward
