"""Training on a GPU: mixed precision, memory format, torch.compile, and the commands."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from core_tuning.cli import main
from core_tuning.encoders import ImageEncoder, build_encoder
from core_tuning.objectives import CoreTuningLoss
from core_tuning.robustness.attack.view import AttackView
from core_tuning.robustness.budgets import make_budget
from core_tuning.training.folder import RunFolder
from core_tuning.training.learner import Learner

DIM, CLASSES = 128, 5
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Of ||difference|| / ||value||, for what a whole network computes.
TOLERANCES = {"fp32": 2e-3, "bf16": 6e-2, "fp16": 1e-2}
STEPS = 14


def image_encoder(device, memory_format=torch.contiguous_format):
    torch.manual_seed(0)
    encoder = ImageEncoder(build_encoder("small_resnet"))
    return encoder.to(device).to(memory_format=memory_format)


def batch(device, n=32):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(n, 3, 32, 32, generator=generator)
    return images.to(device), torch.arange(n, device=device) % CLASSES


def relative_error(found, expected):
    return float((found - expected).detach().norm() / expected.detach().norm())


@pytest.mark.parametrize("precision", DTYPES)
def test_mixed_precision_steps(cuda, precision):
    """Losses are float32 and finite, fall, and leave the weights in their memory format."""
    dtype = DTYPES[precision]
    encoder = image_encoder(cuda, torch.channels_last)
    objective = CoreTuningLoss(DIM, CLASSES).to(cuda)
    classifier = nn.Linear(DIM, CLASSES, bias=False).to(cuda)
    parameters = [p for m in (encoder, objective, classifier) for p in m.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    scaler = torch.amp.GradScaler("cuda", enabled=precision == "fp16")
    images, labels = batch(cuda)
    images = images.contiguous(memory_format=torch.channels_last)
    losses = []
    for _ in range(12):
        with torch.autocast("cuda", dtype, enabled=precision != "fp32"):
            features = encoder(images)
            terms = objective(features, labels, classifier)
        assert features.dtype == dtype
        assert {term.dtype for term in terms} == {torch.float32}
        scaler.scale(terms.total).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(float(terms.total.detach()))
    assert all(torch.isfinite(parameter).all() for parameter in parameters)
    assert torch.isfinite(torch.tensor(losses)).all()
    assert losses[-1] < losses[0] - 0.5
    weight = encoder.encoder.conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def features_and_gradient(encode, encoder, images):
    features = encode(images)
    (gradient,) = torch.autograd.grad(features.square().mean(), encoder.encoder.conv1.weight)
    return features, gradient


def test_channels_last_computes_the_same(cuda):
    images, _ = batch(cuda)
    first, second = image_encoder(cuda), image_encoder(cuda, torch.channels_last)
    expected = features_and_gradient(first, first, images)
    images = images.contiguous(memory_format=torch.channels_last)
    for found, value in zip(features_and_gradient(second, second, images), expected, strict=True):
        assert relative_error(found, value) < TOLERANCES["fp32"]


def test_compiled_encoder_computes_the_same(cuda):
    images, _ = batch(cuda)
    first, second = image_encoder(cuda), image_encoder(cuda)
    expected = features_and_gradient(first, first, images)
    compiled = features_and_gradient(torch.compile(second), second, images)
    for found, value in zip(compiled, expected, strict=True):
        assert relative_error(found, value) < TOLERANCES["fp32"]


def finetune(output, *options):
    return main([str(part) for part in (
        "finetune", "--device", "cuda", "--batch-size", 64, "--epochs", 2, "--limit-steps", STEPS,
        "--eta", 0.1, "--lr", 0.03, "--checkpoint-minutes", 0, "--workers", 2,
        "--output", output, *options,
    )])  # fmt: skip


def distance(first, second):
    """Norm of the difference of two encoders' floating-point tensors."""
    squares = [
        float((first[name] - second[name]).norm() ** 2)
        for name in first
        if first[name].is_floating_point()
    ]
    return sum(squares) ** 0.5


def encoder_of(folder):
    state = torch.load(folder / "checkpoint.pt", weights_only=True, map_location="cpu")
    assert state["step"] == STEPS
    return state["image_encoder"]


@pytest.mark.parametrize("precision", DTYPES)
def test_finetune_and_resume(tmp_path, monkeypatch, precision):
    """A stopped and resumed run ends close to one that was not stopped.

    Close, because a GPU adds up in an order of its own: by a share of the way from the first step.
    """
    options = ("--precision", precision)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert finetune(whole, *options) == 0
    save = RunFolder.save_checkpoint
    steps, encoders = [], []

    def stop_after_five(self, state):
        save(self, state)
        steps.append(state["step"])
        encoders.append({key: t.cpu().clone() for key, t in state["image_encoder"].items()})
        if len(steps) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_checkpoint", stop_after_five)
        assert finetune(cut, *options) == 130
    assert steps == [1, 2, 3, 4, 5]
    assert finetune(cut, *options, "--resume") == 0
    one, other = encoder_of(whole), encoder_of(cut)
    way = distance(one, encoders[0])
    assert way > 0
    assert distance(one, other) < (0.02 if precision == "fp32" else 0.2) * way
    for folder in (whole, cut):
        result = json.loads((folder / "result.json").read_text())
        assert result["steps"] == STEPS
        assert 0 <= result["test"]["top1"] <= 100
        tensors = load_file(folder / "model.safetensors")
        assert all(torch.isfinite(t).all() for t in tensors.values())


def test_finetune_compiled(tmp_path):
    assert finetune(tmp_path / "run", "--compile", "--precision", "bf16") == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == STEPS


@pytest.mark.parametrize("precision", DTYPES)
def test_attack_view_equals_the_model(cuda, precision):
    """Folded, channels_last and in half precision, logits and input gradients stay close."""
    images, labels = batch(cuda)
    encoder = image_encoder(cuda)
    classifier = nn.Linear(DIM, CLASSES, bias=False).to(cuda)
    learner = Learner(encoder, classifier, CoreTuningLoss(DIM, CLASSES).to(cuda)).eval()
    results = []
    for model in (learner, AttackView(learner, precision=precision)):
        entered = images.clone().requires_grad_()
        logits = model(entered)
        nn.functional.cross_entropy(logits, labels).backward()
        results.append((logits.detach(), entered.grad))
    (logits, gradient), (found_logits, found_gradient) = results
    assert found_logits.dtype == found_gradient.dtype == torch.float32
    assert relative_error(found_logits, logits) < TOLERANCES[precision]
    # A rounded activation may fall on the other side of a ReLU, which switches a path off or on.
    wide = {"fp32": 2e-3, "bf16": 0.4, "fp16": 0.1}[precision]
    assert relative_error(found_gradient, gradient) < wide


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_finds_a_larger_loss_within_its_budget(cuda, norm, precision):
    pytest.importorskip("torchattacks")
    from core_tuning.robustness.attack.pgd import perturb

    budget = make_budget(norm, {"linf": 8 / 255, "l2": 0.5}[norm])
    images, labels = batch(cuda)
    model = nn.Sequential(image_encoder(cuda), nn.Linear(DIM, CLASSES).to(cuda)).eval()
    view = AttackView(model, precision=precision)
    adversarial = perturb(view, images, labels, budget, seed=0)
    order = {"linf": torch.inf, "l2": 2}[norm]
    sizes = (adversarial - images).flatten(1).norm(order, dim=1)
    assert sizes.max() <= budget.eps + 1e-5
    assert sizes.min() > budget.eps / 2
    with torch.no_grad():
        before, after = (
            nn.functional.cross_entropy(model(x), labels) for x in (images, adversarial)
        )
    assert after > before
    assert float(view.zero_gradient_share()) == 0


@pytest.mark.parametrize("precision", DTYPES)
def test_robust_train(tmp_path, precision):
    pytest.importorskip("torchattacks")
    argv = (
        "robust", "train", "--device", "cuda", "--batch-size", 64, "--epochs", 1, "--limit-steps",
        3, "--steps", 3, "--norm", "linf", "--eps", "4/255", "--workers", 2, "--precision",
        precision, "--output", tmp_path / "run",
    )  # fmt: skip
    assert main([str(part) for part in argv]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["steps"] == 3
    assert 0 <= result["test"]["robust_top1"] <= result["test"]["top1"] <= 100


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_dg(tmp_path, precision):
    argv = (
        "dg", "--algorithm", "CoreTuning", "--device", "cuda", "--precision", precision,
        "--steps", 4, "--checkpoint_freq", 2, "--hparams", '{"batch_size": 8}',
        "--skip-training-splits", "--output_dir", tmp_path / "run",
    )  # fmt: skip
    assert main([str(part) for part in argv]) == 0
    lines = (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == [0, 2, 3]
    assert all(0 <= record["env0_out_acc"] <= 1 for record in records)
