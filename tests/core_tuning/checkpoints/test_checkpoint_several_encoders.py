"""Where a file holds several encoders, the other one is never taken without a word."""

import pytest

from core_tuning.checkpoints.describe import describe
from core_tuning.checkpoints.load import load_pretrained

RESNET = "small_resnet"
# Files whose preferred encoder lies where it is not expected, and where the other one was found.
HIDDEN = {
    "dino teacher under another prefix": (
        lambda kit, s, d: {
            "student": kit.put("module.backbone.", d),
            "teacher": kit.put("module.net.", s),
        },
        "in student/backbone.* (DINO, student), and in teacher what may be",
    ),
    "dino teacher of other names": (
        lambda kit, s, d: {
            "student": kit.put("backbone.", d),
            "teacher": {key.replace("conv", "convolution"): value for key, value in s.items()},
        },
        "and in teacher what may be",
    ),
    "dino teacher in another section": (
        lambda kit, s, d: {
            "student": kit.put("backbone.", d),
            "teacher_ema": {"weights": kit.put("backbone.", s)},
        },
        "and in teacher_ema.weights what may be",
    ),
    "moco v3": (
        lambda kit, s, d: {
            "state_dict": kit.put("module.online.", s) | kit.put("module.momentum_encoder.", d)
        },
        "in state_dict/momentum_encoder.* (MoCo v3, momentum encoder), and in state_dict what",
    ),
    "pycontrast": (
        lambda kit, s, d: {
            "model": kit.put("module.net.", s),
            "model_ema": kit.put("encoder.", d),
        },
        "in model_ema/encoder.* (PyContrast, momentum encoder), and in model what may be",
    ),
    "cmc": (
        lambda kit, s, d: {"model": kit.put("module.first.", s) | kit.put("module.encoder2.", d)},
        "in model/encoder2.* (CMC (PyContrast), encoder2), and in model what may be",
    ),
    "cmc of two colour spaces": (
        lambda kit, s, d: {
            "model": kit.put("module.first.", s | {"conv1.weight": s["conv1.weight"][:, :1]})
            | kit.put("module.encoder2.", d)
        },
        "and in model what may be the one that is preferred to it, under names that",
    ),
    "cmc momentum": (
        lambda kit, s, d: {
            "model": kit.put("first.", s),
            "model_ema": kit.put("encoder1.", d),
        },
        "in model_ema/encoder1.* (CMC (PyContrast), momentum encoder1), and in model what",
    ),
}


@pytest.mark.parametrize("case", HIDDEN)
def test_the_other_encoder_is_not_taken_instead(kit, case, tmp_path):
    layout, said = HIDDEN[case]
    state = kit.state_of(RESNET)
    file = kit.save(tmp_path / "f.pt", layout(kit, state, kit.decoy(state)))
    for call in (lambda: load_pretrained(file, kit.fresh(RESNET)), lambda: describe(file)):
        text = kit.message(call)
        assert said in text
        assert "save the encoder that you want alone with torch.save(" in text


ALONE = {
    "student": lambda kit, s: {"student": kit.put("module.backbone.", s), "teacher": None},
    "moco v3 momentum": lambda kit, s: kit.moco_v3(s, kit.MLP, base=False),
    "ema": lambda kit, s: {"model_ema": kit.put("encoder.", s), "model": {}},
    "ema beside other values": lambda kit, s: {
        "model_ema": kit.put("encoder.", s),
        "model": "resnet50",
        "optimizer": {"state": {0: {"exp_avg": s["conv1.weight"]}}},
    },
    "cmc": lambda kit, s: {"model": kit.put("module.encoder2.", s) | kit.tensors("head.0.weight")},
}


@pytest.mark.parametrize("case", ALONE)
def test_an_encoder_that_is_alone_is_taken(kit, case, tmp_path):
    state = kit.state_of(RESNET)
    encoder = kit.fresh(RESNET)
    load_pretrained(kit.save(tmp_path / "f.pt", ALONE[case](kit, state)), encoder)
    kit.assert_holds(encoder, state)
