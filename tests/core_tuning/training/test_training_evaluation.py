import math
import types

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from core_tuning.training.evaluate import Evaluation, evaluate

# Logits of six images of classes 0, 0, 0, 1, 1 and 3; class 2 does not occur, and is predicted.
LABELS = [0, 0, 0, 1, 1, 3]
PREDICTED = [0, 0, 1, 1, 2, 3]
CONFUSION = [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]


class Reader(nn.Module):
    """Gives the logits that its images hold, and remembers the mode that it was called in."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.modes = []

    def forward(self, images):
        self.modes.append((self.training, torch.is_grad_enabled()))
        return images.flatten(1)[:, :4] * self.scale


@pytest.fixture
def setting():
    logits = torch.full((6, 4), -1.0)
    logits[range(6), PREDICTED] = 2.0
    images = torch.zeros(6, 3, 2, 2)
    images.view(6, -1)[:, :4] = logits
    loader = DataLoader(TensorDataset(images, torch.tensor(LABELS)), batch_size=4)
    return types.SimpleNamespace(model=Reader(), loader=loader)


def test_confusion_matrix_by_hand(setting):
    result = evaluate(setting.model, setting.loader, 4)
    assert result.confusion().tolist() == CONFUSION
    assert result.confusion([1, 3]).tolist() == [[1, 0], [0, 1]]
    assert result.per_class().tolist() == [3, 2, 0, 1]
    assert result.most_confused(2) == [0, 1]
    assert result.images == 6
    assert result.top1 == pytest.approx(100 * 4 / 6)


def test_loss_is_the_mean_over_images_not_batches(setting):
    """The batches have 4 and 2 images, with one and one mistakes."""
    log_sum = math.log(math.exp(2) + 3 * math.exp(-1))
    right, wrong = log_sum - 2, log_sum + 1
    result = evaluate(setting.model, setting.loader, 4)
    assert result.loss == pytest.approx((4 * right + 2 * wrong) / 6, rel=1e-6)


def test_mean_per_class_leaves_out_classes_that_do_not_occur(setting):
    result = evaluate(setting.model, setting.loader, 4)
    assert result.mean_per_class == pytest.approx(100 * (2 / 3 + 1 / 2 + 1) / 3, rel=1e-6)


def test_summary(setting):
    result = evaluate(setting.model, setting.loader, 4)
    assert result.summary() == {
        "top1": result.top1,
        "mean_per_class": result.mean_per_class,
        "loss": result.loss,
        "images": 6,
    }


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_restored(setting, training):
    setting.model.train(training)
    evaluate(setting.model, setting.loader, 4)
    assert setting.model.training is training
    assert set(setting.model.modes) == {(False, False)}


def test_all_wrong():
    images = (torch.tensor([0, 0, 1]), torch.tensor([1, 1, 0]), torch.tensor([0.6, 0.9, 0.7]))
    result = Evaluation(*images, num_classes=2, loss=1.0)
    assert (result.top1, result.mean_per_class) == (0, 0)
    assert result.worst().tolist() == [1, 2, 0]
    assert result.worst(2).tolist() == [1, 2]
