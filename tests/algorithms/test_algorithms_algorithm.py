"""The three algorithms by DomainBed's interface, without DomainBed."""

from __future__ import annotations

import copy
import io
import itertools
import json
import warnings

import pytest
import torch

from core_tuning.algorithms import CECon, CETuning, CoreTuning
from core_tuning.checkpoints.sources import load_image_encoder
from core_tuning.encoders import IMAGENET_MEAN, IMAGENET_STD
from core_tuning.errors import UserError

ALL = (CoreTuning, CECon, CETuning)
SHAPE = (3, 32, 32)


def build(algorithm=CoreTuning, **hparams):
    torch.manual_seed(0)
    return algorithm(SHAPE, 4, 3, {"checkpoint": "embedded", "total_steps": 5, **hparams})


def minibatches(seed=0, domains=3, batch=6):
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(batch, *SHAPE, generator=generator),
            torch.randint(0, 4, (batch,), generator=generator),
        )
        for _ in range(domains)
    ]


@pytest.mark.parametrize("algorithm", ALL)
def test_update_returns_the_same_keys_as_plain_floats(algorithm):
    model = build(algorithm)
    keys = set()
    for step in range(3):
        values = model.update(minibatches(step))
        assert {type(value) for value in values.values()} == {float}
        keys.add(tuple(values))
    assert len(keys) == 1
    assert keys.pop()[0] == "loss"


@pytest.mark.parametrize("algorithm", ALL)
def test_a_step_is_the_objective_on_all_domains_together(algorithm):
    model = build(algorithm, lr=0.01, weight_decay=0.1)
    by_hand = copy.deepcopy(model)
    batches = minibatches()
    torch.manual_seed(1)
    reported = model.update(batches)

    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=0.01, weight_decay=0.1)
    torch.manual_seed(1)
    terms = by_hand.objective(by_hand.featurizer(images), labels, by_hand.classifier)
    terms.total.backward()
    optimizer.step()
    assert reported["loss"] == pytest.approx(terms.total.item())
    for (name, expected), found in zip(by_hand.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, msg=name)


def test_predict_gives_logits_without_the_projection_head():
    model = build().eval()
    images = minibatches()[0][0]
    with torch.no_grad():
        assert model.predict(images).shape == (6, 4)
        torch.testing.assert_close(
            model.predict(images), model.classifier(model.featurizer(images))
        )


def running_statistics(model):
    return {name: value.clone() for name, value in model.state_dict().items() if "running_" in name}


def changed_statistics(freeze):
    model = build(freeze_bn=freeze)
    before = running_statistics(model.featurizer)
    assert before
    assert model.train() is model
    model.update(minibatches())
    return [n for n, v in running_statistics(model.featurizer).items() if not v.equal(before[n])]


def test_frozen_batch_norm_keeps_its_statistics_and_others_do_not():
    assert changed_statistics(True) == []
    assert changed_statistics(False)


def rates(model, steps):
    found = []
    for step in range(steps):
        model.update(minibatches(step, domains=1))
        found.append(model.optimizer.param_groups[0]["lr"])
    return found


def test_the_learning_rate_falls_exponentially_to_a_hundredth_and_stays():
    with pytest.warns(UserWarning, match="step 6"):
        found = rates(build(CETuning, lr=1.0), 6)
    assert found[0] == 1.0
    assert found[4] == found[5] == pytest.approx(0.01)
    ratios = [after / before for before, after in itertools.pairwise(found[:5])]
    assert ratios == pytest.approx([0.01 ** (1 / 4)] * 4)


def test_the_first_step_past_the_schedule_warns_once_and_loudly(capsys):
    model = build(CETuning, lr=1.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        rates(model, 5)
        assert capsys.readouterr().err == ""
        rates(model, 3)
    sentence = (
        "CETuning takes step 6, but its learning rate falls over 5 steps and stays at 0.01 of lr "
        "from here on: give the number of steps of the whole run as the hyper-parameter "
        "total_steps."
    )
    assert capsys.readouterr().err == f"core-tuning: warning: {sentence}\n"
    assert caught == []
    again = build(CETuning, lr=1.0)
    again.load_state_dict(model.state_dict())
    with pytest.warns(UserWarning, match="takes step 9, but"):
        rates(again, 1)


def test_the_schedule_goes_on_from_a_state_dict():
    model = build(CETuning, lr=1.0)
    rates(model, 2)
    resumed = build(CETuning, lr=1.0)
    resumed.load_state_dict(model.state_dict())
    assert rates(resumed, 1) == pytest.approx([0.01 ** (2 / 4)])


@pytest.mark.parametrize("algorithm", ALL)
def test_what_train_saves_loads_with_weights_only(algorithm):
    model = build(algorithm)
    file = io.BytesIO()
    torch.save({"model_hparams": model.hparams, "model_dict": model.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    assert json.loads(json.dumps(saved["model_hparams"])) == model.hparams
    again = algorithm(SHAPE, 4, 3, saved["model_hparams"])
    again.load_state_dict(saved["model_dict"])
    images = minibatches()[0][0]
    torch.testing.assert_close(again.eval().predict(images), model.eval().predict(images))


def test_normalised_images_give_the_encoders_features_of_plain_images():
    model = build().eval()
    encoder, _ = load_image_encoder("small_resnet", "embedded")
    images = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        expected = encoder.eval()(images)
        found = model.featurizer((images - mean) / std)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 0.01


@pytest.mark.parametrize(
    ("shape", "hparams", "said"),
    [
        ((2, 28, 28), {"checkpoint": "random"}, "2 channels.*three channels"),
        (SHAPE, {"checkpoint": ""}, r"no checkpoint to start from.*CORE_TUNING_CHECKPOINT"),
        (SHAPE, {"checkpoint": "embedded", "alfa": 1.0}, "did you mean 'alpha'"),
        (SHAPE, {"checkpoint": "nowhere.pt"}, "nowhere.pt"),
    ],
)
def test_mistakes_are_refused(shape, hparams, said):
    with pytest.raises(UserError, match=said):
        CoreTuning(shape, 4, 3, hparams)
