import pytest
import torch
from torch import nn

from core_tuning.errors import UserError
from core_tuning.objectives import CEContrastiveLoss, CoreTuningLoss, CrossEntropyLoss


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_the_projection_is_configurable(kit, depth):
    for objective in (
        CoreTuningLoss(kit.DIM, kit.CLASSES, projection_dim=6, projection_depth=depth),
        CEContrastiveLoss(kit.DIM, projection_dim=6, projection_depth=depth),
    ):
        linear = [m for m in objective.projection.modules() if isinstance(m, nn.Linear)]
        assert len(linear) == depth
        out = objective.projection(torch.randn(3, kit.DIM))
        assert out.shape == (3, 6)
        torch.testing.assert_close(out.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("eta", -0.1),
        ("alpha", 0.0),
        ("alpha", -1.0),
        ("temperature", 0.0),
        ("temperature", -0.07),
        ("lambda_n", -0.1),
        ("lambda_n", 1.1),
        ("lambda_p", -0.1),
        ("lambda_p", 1.1),
        ("projection_depth", 0),
        ("projection_depth", 6),
        ("positives", "some"),
        ("mixing", "soft"),
    ],
)
def test_core_tuning_refuses(kit, option, value):
    # The message must name the value.
    with pytest.raises(UserError, match=str(value)):
        kit.core(**{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [("eta", -1.0), ("temperature", 0.0), ("projection_depth", 0), ("projection_depth", 6)],
)
def test_ce_con_refuses(kit, option, value):
    with pytest.raises(UserError, match=str(value)):
        CEContrastiveLoss(kit.DIM, **{option: value})


@pytest.mark.parametrize(("option", "value"), [("mixing", "hard"), ("alpha", 0.0), ("alpha", -2.0)])
def test_cross_entropy_refuses(kit, option, value):
    options = {"mixing": "manifold", option: value}
    with pytest.raises(UserError, match=str(value)):
        CrossEntropyLoss(num_classes=kit.CLASSES, **options)


def test_the_ends_of_each_range_are_allowed(kit):
    labels = torch.tensor(kit.LABELS["balanced"])
    torch.manual_seed(0)
    for bound in (0.0, 1.0):
        objective = kit.core(eta=0.0, lambda_n=bound, lambda_p=bound)
        terms = objective(
            torch.randn(len(labels), kit.DIM), labels, nn.Linear(kit.DIM, kit.CLASSES)
        )
        torch.testing.assert_close(terms.total, terms.cross_entropy)
