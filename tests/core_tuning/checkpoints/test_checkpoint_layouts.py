"""Each test writes a checkpoint as its method's release lays it out and reads it back."""

from collections import OrderedDict

import pytest
import torch

from core_tuning.checkpoints.load import load_pretrained
from core_tuning.encoders import NO_NORMALISATION, Normalisation

IMAGENET = Normalisation()
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
RESNET = "small_resnet"
VIT = "timm:test_vit"

SWAV_HEADS = ("projection_head.0.weight", "prototypes.weight")
DC2_HEADS = ("projection_head.0.weight", "prototypes.prototypes0.weight")
BARLOW_HEADS = ("module.projector.0.weight", "module.bn.running_mean")
SIMCLR_V1 = "SimCLR v1 (converted)"
BYOL_OR_OLD = "BYOL (converted) or supervised before PyTorch 0.4.1"
INSDIS = "InsDis or InfoMin (PyContrast)"
NO_HEAD = "encoder without a head (Barlow Twins, VICReg, DINO ResNet-50 or other)"
TORCHVISION = "supervised (torchvision or timm)"
TRAINED = "training checkpoint (PyTorch ImageNet example, timm or MoCo v3 linear)"
TRAINED_MODEL = "training checkpoint (DeiT, MAE or other)"
LIGHTNING = "solo-learn or lightly (Lightning)"
# id: (encoder, what the file holds given the encoder's tensors, format, a name that is ignored)
LAYOUTS = {
    "moco v1": (
        RESNET,
        lambda kit, s: kit.moco(s, kit.FC),
        "MoCo v1",
        "module.encoder_q.fc.weight",
    ),
    "moco v2": (RESNET, lambda kit, s: kit.moco(s, kit.MLP), "MoCo v2", "module.queue"),
    "moco v2 without module": (RESNET, lambda kit, s: kit.moco(s, kit.MLP, ""), "MoCo v2", "queue"),
    "moco without head": (
        RESNET,
        lambda kit, s: kit.moco(s, {}),
        "MoCo v1 or v2 without its head",
        "",
    ),
    "moco v3": (
        RESNET,
        lambda kit, s: kit.moco_v3(s, kit.MLP),
        "MoCo v3",
        "module.predictor.0.weight",
    ),
    "moco v3 vit": (
        VIT,
        lambda kit, s: kit.moco_v3(s, kit.tensors("head.0.weight")),
        "MoCo v3",
        "module.base_encoder.head.0.weight",
    ),
    "moco v3 momentum": (
        VIT,
        lambda kit, s: kit.moco_v3(s, {}, base=False),
        "MoCo v3, momentum encoder",
        "module.predictor.0.weight",
    ),
    "timm training": (
        VIT,
        lambda kit, s: {
            "arch": "vit_small_patch16_224",
            "state_dict": kit.put("module.", s | kit.tensors("head.weight")),
        },
        TRAINED,
        "module.head.weight",
    ),
    "moco v3 linear": (
        VIT,
        lambda kit, s: {
            "arch": "vit_small",
            "state_dict": kit.put("module.", s | kit.tensors("head.weight")),
            **kit.TRAINING,
        },
        "MoCo v3, linear evaluation",
        "module.head.weight",
    ),
    "insdis": (
        RESNET,
        lambda kit, s: kit.pycontrast(s, "head.0.weight"),
        INSDIS,
        "module.head.0.weight",
    ),
    "pirl": (
        RESNET,
        lambda kit, s: kit.pycontrast(s, "head.0.weight", "head_jig.fc1.0.weight"),
        "PIRL (PyContrast)",
        "module.head_jig.fc1.0.weight",
    ),
    "infomin with ema": (
        RESNET,
        lambda kit, s: (
            kit.pycontrast(s, "head.0.weight") | {"model_ema": kit.put("encoder.", kit.decoy(s))}
        ),
        INSDIS,
        "model_ema",
    ),
    "infomin ema alone": (
        RESNET,
        lambda kit, s: {"model_ema": kit.put("encoder.", s) | kit.tensors("head.0.weight")},
        "PyContrast, momentum encoder",
        "head.0.weight",
    ),
    "cmc": (
        RESNET,
        lambda kit, s: {
            "model": kit.put(
                "module.", kit.put("encoder1.", s) | kit.put("encoder2.", kit.decoy(s))
            )
        },
        "CMC (PyContrast), encoder1",
        "module.encoder2.conv1.weight",
    ),
    "cmc encoder2": (
        RESNET,
        lambda kit, s: {"model": kit.put("module.encoder2.", s)},
        "CMC (PyContrast), encoder2",
        "",
    ),
    "swav": (RESNET, lambda kit, s: kit.swav(s, *SWAV_HEADS), "SwAV", "module.prototypes.weight"),
    "swav training": (
        RESNET,
        lambda kit, s: {"state_dict": kit.swav(s, *SWAV_HEADS), **kit.TRAINING},
        "SwAV",
        "optimizer",
    ),
    "deepcluster-v2": (
        RESNET,
        lambda kit, s: kit.swav(s, *DC2_HEADS),
        "DeepCluster-v2",
        "module.prototypes.prototypes0.weight",
    ),
    "deepcluster-v2 training": (
        RESNET,
        lambda kit, s: {"state_dict": kit.swav(s, *DC2_HEADS), **kit.TRAINING},
        "DeepCluster-v2",
        "optimizer",
    ),
    "simclr v1": ("resnet50", lambda kit, s: {"state_dict": s | kit.FC}, SIMCLR_V1, "fc.weight"),
    "not simclr v1, whose file holds nothing else": (
        "resnet50",
        lambda kit, s: {"state_dict": s | kit.FC, **kit.TRAINING},
        TRAINED,
        "optimizer",
    ),
    "not simclr v1, which is a ResNet-50": (
        RESNET,
        lambda kit, s: {"state_dict": s | kit.FC},
        TRAINED,
        "fc.weight",
    ),
    "byol": (RESNET, lambda kit, s: kit.untracked(s), "BYOL (converted)", ""),
    "byol with fc": (RESNET, lambda kit, s: kit.untracked(s) | kit.FC, BYOL_OR_OLD, "fc.weight"),
    "dino release": (VIT, lambda kit, s: s, "DINO or other ViT without a head", ""),
    "dino full": (
        VIT,
        lambda kit, s: kit.dino(s, "", student=kit.put("module.backbone.", kit.decoy(s))),
        "DINO, teacher",
        "head.mlp.0.weight",
    ),
    "dino full resnet": (
        RESNET,
        lambda kit, s: kit.dino(s, "module.", student=kit.put("module.backbone.", kit.decoy(s))),
        "DINO, teacher",
        "student",
    ),
    "dino student alone": (
        VIT,
        lambda kit, s: {"student": kit.put("module.backbone.", s)},
        "DINO, student",
        "",
    ),
    "barlow twins, vicreg release": (RESNET, lambda kit, s: s, NO_HEAD, ""),
    "barlow twins training": (
        RESNET,
        lambda kit, s: {
            "model": kit.put("module.backbone.", s) | kit.tensors(*BARLOW_HEADS),
            **kit.TRAINING,
        },
        "Barlow Twins",
        "module.bn.running_mean",
    ),
    "vicreg training": (
        RESNET,
        lambda kit, s: {"model": kit.put("backbone.", s) | kit.tensors("projector.0.weight")},
        "VICReg",
        "projector.0.weight",
    ),
    "vissl": (RESNET, lambda kit, s: kit.vissl(kit.put("_feature_blocks.", s)), "VISSL", ""),
    "vissl vit": (VIT, lambda kit, s: kit.vissl(s), "VISSL", ""),
    "supcontrast": (
        RESNET,
        lambda kit, s: {
            "model": kit.put("encoder.", s) | kit.tensors("head.0.weight"),
            **kit.TRAINING,
        },
        "SupContrast",
        "head.0.weight",
    ),
    "supcontrast, many GPUs": (
        RESNET,
        lambda kit, s: {"model": kit.put("encoder.module.", s) | kit.tensors("head.0.weight")},
        "SupContrast",
        "head.0.weight",
    ),
    "lightning": (RESNET, lambda kit, s: {"state_dict": kit.put("backbone.", s)}, LIGHTNING, ""),
    "torchvision": (RESNET, lambda kit, s: OrderedDict(s | kit.FC), TORCHVISION, "fc.bias"),
    "timm": (
        VIT,
        lambda kit, s: s | kit.tensors("head.weight"),
        "supervised (timm)",
        "head.weight",
    ),
    "timm, norm in head": (
        "timm:test_convnext",
        lambda kit, s: s | kit.tensors("head.fc.weight"),
        "supervised (timm)",
        "head.fc.weight",
    ),
    "timm, convolution in head": (
        "timm:efficientvit_b0",
        lambda kit, s: s | kit.tensors("head.classifier.4.weight"),
        "supervised (timm)",
        "head.classifier.4.weight",
    ),
    "timm, classifier": (
        "timm:test_efficientnet",
        lambda kit, s: s | kit.tensors("classifier.weight"),
        "supervised (timm)",
        "classifier.weight",
    ),
    "mae": (
        VIT,
        lambda kit, s: {"model": s | kit.tensors("mask_token")},
        TRAINED_MODEL,
        "mask_token",
    ),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_each_layout_is_recognised_and_loaded(kit, case, tmp_path):
    name, layout, expected, ignored = LAYOUTS[case]
    state = kit.state_of(name)
    encoder = kit.fresh(name)
    report = load_pretrained(kit.save(tmp_path / "any.pth.tar", layout(kit, state)), encoder)
    assert report.format == expected
    # A module's own num_batches_tracked, zero, stays where the file has none.
    zero = {key: torch.zeros_like(value) for key, value in state.items() if "batches" in key}
    kit.assert_holds(encoder, state | zero if case.startswith("byol") else state)
    assert report.loaded == len(state) - (len(zero) if case.startswith("byol") else 0)
    assert report.parameters == sum(value.numel() for value in encoder.parameters())
    assert not ignored or ignored in report.ignored
    assert not [name for name in report.ignored if name in state]


def test_what_normalisation_each_format_brings(kit, tmp_path):
    def loaded(case, **options):
        name, layout, _, _ = LAYOUTS[case]
        return load_pretrained(
            kit.save(tmp_path / "f.pt", layout(kit, kit.state_of(name))), kit.fresh(name), **options
        )

    assert loaded("moco v2").normalisation == IMAGENET
    simclr = loaded("simclr v1")
    assert simclr.normalisation == NO_NORMALISATION
    assert "assumed to be SimCLR v1" in str(simclr) and "--normalisation" in str(simclr)
    assert loaded("not simclr v1, which is a ResNet-50").normalisation == IMAGENET
    assert loaded("simclr v1", normalisation=HALF).normalisation == HALF
    assert loaded("dino release").normalisation == IMAGENET


@pytest.mark.parametrize(
    "wrapper",
    ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "_fsdp_wrapped_module."],
)
def test_wrappers_in_any_order_do_not_count(kit, wrapper, tmp_path):
    state = kit.state_of(RESNET)
    encoder = kit.fresh(RESNET)
    file = kit.save(tmp_path / "f.pt", {"state_dict": kit.put(f"{wrapper}encoder_q.", state)})
    assert load_pretrained(file, encoder).format == "MoCo v1 or v2 without its head"
    kit.assert_holds(encoder, state)


HEADS = (
    "assumed 2 attention heads, timm's number, because the tensors do not show it; "
    "pass --encoder timm:test_vit,num_heads=N if there were others"
)


@pytest.mark.parametrize(
    ("case", "note"),
    [
        ("moco v3", "took state_dict/base_encoder.* and not state_dict/momentum_encoder.*"),
        ("dino full", f"took teacher/backbone.* and not student/backbone.*; {HEADS}"),
        ("infomin with ema", "took model/encoder.* and not model_ema/encoder.*"),
        ("cmc", "took model/encoder1.* and not model/encoder2.*"),
        ("moco v2", ""),
        ("supcontrast, many GPUs", ""),
    ],
)
def test_a_choice_between_encoders_is_told(kit, case, note, tmp_path):
    name, layout, _, _ = LAYOUTS[case]
    file = kit.save(tmp_path / "f.pt", layout(kit, kit.state_of(name)))
    assert load_pretrained(file, kit.fresh(name)).note == note
