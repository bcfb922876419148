"""What the loss core says of tensors that do not fit: one sentence, by name, with what to do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from core_tuning import losses, mining, released
from core_tuning.errors import UserError
from core_tuning.heads import ProjectionHead
from core_tuning.objectives import CEContrastiveLoss, CoreTuningLoss, CrossEntropyLoss

N, DIM, CLASSES = 6, 8, 4
OBJECTIVES = {
    "ce": lambda: CrossEntropyLoss(CLASSES),
    "ce_manifold": lambda: CrossEntropyLoss(CLASSES, mixing="manifold"),
    "ce_con": lambda: CEContrastiveLoss(DIM),
    "core": lambda: CoreTuningLoss(DIM, CLASSES),
    "core_sharp": lambda: CoreTuningLoss(DIM, CLASSES, smooth_classifier=False),
    "core_manifold": lambda: CoreTuningLoss(DIM, CLASSES, mixing="manifold"),
    "core_none": lambda: CoreTuningLoss(DIM, CLASSES, mixing="none"),
    "released": lambda: released.ReleasedCoreTuningLoss(DIM, CLASSES),
}


def features(*shape, dtype=torch.float32):
    return torch.rand(*(shape or (N, DIM))).to(dtype)


def labels(dtype=torch.int64):
    return torch.tensor([0, 1, 2, 0, 1, 3]).to(dtype)


def refused(call, *parts):
    with pytest.raises(UserError) as error:
        call()
    sentence = str(error.value)
    assert sentence.endswith(".") and "\n" not in sentence
    for part in parts:
        assert part in sentence


# What is given to every objective in place of a good argument, and what the sentence has in it.
BAD = {
    "features (n,d,1,1)": (
        {"features": features(N, DIM, 1, 1)},
        "features have shape (6, 8, 1, 1)", "pooled features, a row for each sample",
    ),
    "features (d,)": ({"features": features(DIM)}, "features have shape (8,)"),
    "features of integers": (
        {"features": features(dtype=torch.int64)},
        "features have dtype int64: expected float32", "features.float()",
    ),
    "complex features": ({"features": features(dtype=torch.complex64)}, "dtype complex64"),
    "features of float8": ({"features": features(dtype=torch.float8_e5m2)}, "dtype float8_e5m2"),
    "a list": ({"features": [[0.0] * DIM] * N}, "features are of type list: expected a tensor"),
    "no sample": (
        {"features": features(0, DIM), "labels": labels()[:0]},
        "features have shape (0, 8): expected one sample or more",
    ),
    "labels (n,1)": (
        {"labels": labels()[:, None]},
        "labels have shape (6, 1): expected (6,); give one class index for each sample",
    ),
    "one-hot labels": (
        {"labels": F.one_hot(labels())},
        "labels have shape (6, 4): expected (6,)", "not one-hot rows",
    ),
    "fewer labels": ({"labels": labels()[:4]}, "labels have shape (4,): expected (6,)"),
    "labels of floats": (
        {"labels": labels(torch.float32)},
        "labels have dtype float32: expected int64 or another integer dtype", "labels.long()",
    ),
    "labels of bools": ({"labels": labels(torch.bool)}, "labels have dtype bool"),
    "label -1": (
        {"labels": torch.tensor([0, 1, 2, 0, 1, -1])},
        "labels reach from -1 to 2: expected class indices from 0 to 3",
    ),
    "label -100": ({"labels": torch.tensor([0, 1, 2, 0, 1, -100])}, "labels reach from -100 to 2"),
    "label K": (
        {"labels": torch.tensor([0, 1, 2, 0, 1, CLASSES])},
        "labels reach from 0 to 4: expected class indices from 0 to 3",
    ),
    "fewer weights": ({"weights": torch.ones(4)}, "weights have shape (4,): expected (6,)"),
    "weights (n,1)": ({"weights": torch.ones(N, 1)}, "weights have shape (6, 1): expected (6,)"),
    "complex weights": (
        {"weights": torch.ones(N, dtype=torch.complex64)}, "weights have dtype complex64",
    ),
    "a negative weight": (
        {"weights": torch.arange(-1.0, N - 1)},
        "weights reach from -1 to 4: expected finite numbers of at least 0",
    ),
    "an infinite weight": ({"weights": torch.tensor([1.0] * 5 + [torch.inf])}, "to inf: expected"),
    "weight nan": ({"weights": torch.tensor([1.0] * 5 + [torch.nan])}, "nan: expected finite"),
    "labels elsewhere": (
        {"labels": labels().to("meta")},
        "labels are on meta and features on cpu: expected one device", "labels.to('cpu')",
    ),
    "a narrower classifier": (
        {"classifier": nn.Linear(5, CLASSES)},
        "features have width 8 and the classifier takes 5", "torch.nn.Linear(8, K)",
    ),
    "logits of one axis": (
        {"classifier": lambda z: z[:, 0]}, "logits have shape (", "make the classifier",
    ),
    "half of the logits": ({"classifier": lambda z: z[: len(z) // 2, :CLASSES]}, "logits have"),
    "logits of integers": ({"classifier": lambda z: z[:, :CLASSES].long()}, "dtype int64"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_refuse(name, bad):
    given, *parts = BAD[bad]
    if name == "released" and "weights" in given:
        parts = ["which does not take them"]
    arguments = {
        "features": features(), "labels": labels(), "classifier": nn.Linear(DIM, CLASSES),
        "weights": None, **given,
    }  # fmt: skip
    refused(lambda: OBJECTIVES[name]()(**arguments), *parts)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if not name.startswith("ce_m")])
def test_features_of_another_width(name):
    """Without a projection head any width will do that the classifier takes."""
    call = lambda: OBJECTIVES[name]()(features(N, 5), labels(), nn.Linear(5, CLASSES))  # noqa: E731
    if name == "ce":
        assert call().total.isfinite()
    else:
        refused(call, "features have shape (6, 5): expected (6, 8)")


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "ce_con"])
def test_a_classifier_of_another_number_of_classes(name):
    rows = {"ce": 6, "core_sharp": 6, "core_none": 6, "ce_manifold": 12, "core_manifold": 12}
    n = rows.get(name, 18)
    refused(
        lambda: OBJECTIVES[name]()(features(), labels(), nn.Linear(DIM, 7)),
        f"logits have shape ({n}, 7): expected ({n}, 4)",
    )


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8, torch.uint8])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_labels_of_any_integer_dtype(name, dtype):
    torch.manual_seed(0)
    objective, z, classifier = OBJECTIVES[name](), features(), nn.Linear(DIM, CLASSES)
    terms = [
        objective(z, labels(each), classifier, generator=torch.Generator().manual_seed(0))
        for each in (torch.int64, dtype)
    ]
    for one, other in zip(*terms, strict=True):
        assert torch.equal(one, other)


def test_weights_of_integers_and_bools_count():
    loss = OBJECTIVES["ce"]()
    z, y, classifier = features(), labels(), nn.Linear(DIM, CLASSES)
    weights = torch.tensor([1, 0, 1, 1, 0, 1])
    expected = loss(z[weights > 0], y[weights > 0], classifier).total
    for given in (weights, weights.bool(), weights.double()):
        torch.testing.assert_close(loss(z, y, classifier, weights=given).total, expected)


def pairs():
    return mining.mine_pairs(features(), labels())


def targets(*shape):
    return torch.rand(*(shape or (N, CLASSES)))


V, LAM = F.normalize(torch.rand(N, DIM)), torch.rand(N)
INDEX = torch.zeros(N, dtype=torch.int64)
FUNCTIONS = {
    "mine_pairs of maps": (
        lambda: mining.mine_pairs(features(N, DIM, 2, 2), labels()), "features have shape",
    ),
    "mine_pairs of nothing": (
        lambda: mining.mine_pairs(features(0, DIM), labels()[:0]), "one sample or more",
    ),
    "mine_pairs by name": (
        lambda: mining.mine_pairs(features=None, labels=None), "features are of type NoneType: ",
    ),
    "mix_pairs of integers": (
        lambda: mining.mix_pairs(features(), F.one_hot(labels()), pairs(), LAM, LAM),
        "targets have dtype int64", "targets.float()",
    ),
    "mix_pairs with factors (n,1)": (
        lambda: mining.mix_pairs(features(), targets(), pairs(), LAM[:, None], LAM),
        "lam_positive has shape (6, 1): expected (6,)",
    ),
    "mix_pairs with fewer factors": (
        lambda: mining.mix_pairs(features(), targets(), pairs(), LAM, LAM[:5]), "lam_negative has",
    ),
    "mix_pairs of another batch": (
        lambda: mining.mix_pairs(features(3, DIM), targets(3, 4), pairs(), LAM[:3], LAM[:3]),
        "hardest_positive has shape (6,): expected (3,)",
    ),
    "sample_lambda of none": (lambda: mining.sample_lambda(0, 1.0), "n is 0"),
    "sample_lambda with inf": (lambda: mining.sample_lambda(3, torch.inf), "alpha is inf"),
    "sample_lambda with text": (
        lambda: mining.sample_lambda(3, "1"), "alpha is '1': expected a number",
    ),
    "sample_lambda above 1": (
        lambda: mining.sample_lambda(3, 1.0, minimum=1.5), "minimum is 1.5: expected at least 0",
    ),
    "supervised_contrastive, (n,1)": (
        lambda: losses.supervised_contrastive(V, labels()[:, None]), "labels have shape (6, 1)",
    ),
    "supervised_contrastive, temperature": (
        lambda: losses.supervised_contrastive(V, labels(), temperature=0), "temperature is 0",
    ),
    "focal_contrastive, widths": (
        lambda: losses.focal_contrastive(V, labels(), V, V[:, :3]),
        "hard_negatives have shape (6, 3): expected (6, 8)",
    ),
    "focal_contrastive, one kind": (
        lambda: losses.focal_contrastive(V, labels(), V, None), "hard_negatives are missing",
    ),
    "focal_contrastive, integers": (
        lambda: losses.focal_contrastive(V, labels(), V, V, has_negative=labels()),
        "has_negative has dtype int64: expected bool",
    ),
    "focal_contrastive, positives": (
        lambda: losses.focal_contrastive(V, labels(), V, V, positives="some"), "is 'some'",
    ),
    "mixed_cross_entropy, classes": (
        lambda: losses.mixed_cross_entropy(targets(), labels(), targets(12, 5), targets(12, 5)),
        "mixed_logits have shape (12, 5): expected (12, 4)",
    ),
    "mixed_cross_entropy, no mixtures": (
        lambda: losses.mixed_cross_entropy(targets(), labels(), targets(0, 4), targets(0, 4)),
        "mixed_logits have shape (0, 4)",
    ),
    "mixed_cross_entropy, weights": (
        lambda: losses.mixed_cross_entropy(
            targets(), labels(), targets(12, 4), targets(12, 4), weights=torch.ones(6)
        ),
        "weights have shape (6,): expected (12,)",
    ),
    "released_pairs": (
        lambda: released.released_pairs(features(), labels()[:3]), "labels have shape (3,)",
    ),
    "released_mixtures": (
        lambda: released.released_mixtures(features(), targets(), INDEX, INDEX, INDEX, LAM, V),
        "lam_positive has shape (6, 8): expected (6,)",
    ),
    "released_contrastive": (
        lambda: released.released_contrastive(V, targets(5, 4)), "targets have shape (5, 4)",
    ),
    "released_cross_entropy": (
        lambda: released.released_cross_entropy(targets(), targets(N, 5)), "expected (6, 4)",
    ),
    "head": (lambda: ProjectionHead(DIM)(features(N, 5)), "expected (6, 8)"),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_refuse(name):
    refused(*FUNCTIONS[name])


ARGUMENTS = [
    (option, value)
    for option, values in {
        "feature_dim": (0, -1, 2.5, 10**12),
        "num_classes": (0, -3, 10**12, True),
        "eta": (-0.1, torch.nan, torch.inf, True, "0.1", 1e300),
        "alpha": (0, torch.nan, torch.inf, False, "1"),
        "temperature": (0, torch.nan, torch.inf, True, "0.07", 1e-300),
        "lambda_n": (-0.1, 1.1, torch.nan, "0.8"),
        "projection_dim": (0, -1, 10**12, 10**20, 2.0),
        "projection_depth": (0, 6, 10**12, True),
    }.items()
    for value in values
]


@pytest.mark.parametrize(("option", "value"), ARGUMENTS)
def test_constructors_refuse(option, value):
    shown = f"{option} is {value!r}: expected "
    refused(lambda: CoreTuningLoss(**{"feature_dim": DIM, "num_classes": 4, option: value}), shown)
    if option in ("feature_dim", "eta", "temperature", "projection_dim", "projection_depth"):
        refused(lambda: CEContrastiveLoss(**{"feature_dim": DIM, option: value}), shown)
    if option in ("num_classes", "alpha"):
        given = {"num_classes": 4, "mixing": "manifold", option: value}
        refused(lambda: CrossEntropyLoss(**given), shown)


def test_one_class_alone_has_nothing_to_learn():
    for name, objective in {
        "ce": CrossEntropyLoss(1), "core": CoreTuningLoss(DIM, 1),
        "released": released.ReleasedCoreTuningLoss(DIM, 1),
    }.items():  # fmt: skip
        terms = objective(features(), torch.zeros(N, dtype=torch.int64), nn.Linear(DIM, 1))
        assert float(terms.cross_entropy.detach()) == 0, name
        assert terms.total.isfinite()


def test_no_values_are_read_while_compiling():
    objective, classifier = OBJECTIVES["ce"](), nn.Linear(DIM, CLASSES)
    compiled = torch.compile(
        lambda z, y, w: objective(z, y, classifier, weights=w).total,
        backend="eager", fullgraph=True,
    )  # fmt: skip
    z, y, weights = features(), labels(), torch.rand(N)
    expected = objective(z, y, classifier, weights=weights).total
    torch.testing.assert_close(compiled(z, y, weights), expected)
