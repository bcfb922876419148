"""Each test writes a checkpoint as its method's release lays it out and reads it back."""

import argparse
import functools
import json
import os
import pathlib
import pickle
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from core_tuning.checkpoint_architecture import guess_architecture
from core_tuning.checkpoints import describe, load_pretrained, read_checkpoint
from core_tuning.encoders import (
    NO_NORMALISATION,
    ImageEncoder,
    Normalisation,
    build_encoder,
)
from core_tuning.errors import UserError
from core_tuning.inspect_checkpoint import main

IMAGENET = Normalisation()
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
RESNET = "small_resnet"
VIT = "timm:test_vit"


@functools.cache
def state_of(name, seed=0):
    """Random tensors of an encoder, the batch-norm statistics included."""
    generator = torch.Generator().manual_seed(seed)
    state = build_encoder(name).state_dict()
    return {
        key: torch.rand(value.shape, generator=generator)
        if value.is_floating_point()
        else torch.full_like(value, 7)
        for key, value in state.items()
    }


def decoy(state):
    """An encoder that must not be taken."""
    return {key: value + 1 for key, value in state.items()}


def put(prefix, tensors):
    return {prefix + key: value for key, value in tensors.items()}


def untracked(state):
    return {key: value for key, value in state.items() if "num_batches_tracked" not in key}


def tensors(*names):
    return {name: torch.zeros(2, 2) for name in names}


FC = tensors("fc.weight", "fc.bias")
MLP = tensors("fc.0.weight", "fc.0.bias", "fc.2.weight", "fc.2.bias")
TRAINING = {"epoch": 5, "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}}}


def moco(state, head, module="module."):
    both = put("encoder_q.", {**state, **head}) | put("encoder_k.", {**decoy(state), **head})
    return {
        "arch": "r",
        "state_dict": put(module, both | tensors("queue", "queue_ptr")),
        **TRAINING,
    }


def moco_v3(state, head, *, base=True):
    base_encoder = put("module.base_encoder.", state | head) if base else {}
    other = decoy(state) if base else state
    momentum = put("module.momentum_encoder.", other | head)
    return {"state_dict": base_encoder | momentum | tensors("module.predictor.0.weight")}


def pycontrast(state, *heads):
    return {"model": put("module.", put("encoder.", state) | tensors(*heads)), "epoch": 1}


def swav(state, *heads):
    return put("module.", state | tensors(*heads))


def vissl(trunk):
    base = {"model": {"trunk": trunk, "heads": tensors("0.clf.weight")}}
    return {"classy_state_dict": {"base_model": base}, "iteration": 9}


def dino(state, wrapper, **more):
    return {"teacher": put(wrapper, put("backbone.", state) | tensors("head.mlp.0.weight")), **more}


SWAV_HEADS = ("projection_head.0.weight", "prototypes.weight")
DC2_HEADS = ("projection_head.0.weight", "prototypes.prototypes0.weight")
BARLOW_HEADS = tensors("module.projector.0.weight", "module.bn.running_mean")
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
    "moco v1": (RESNET, lambda s: moco(s, FC), "MoCo v1", "module.encoder_q.fc.weight"),
    "moco v2": (RESNET, lambda s: moco(s, MLP), "MoCo v2", "module.queue"),
    "moco v2 without module": (RESNET, lambda s: moco(s, MLP, ""), "MoCo v2", "queue"),
    "moco without head": (RESNET, lambda s: moco(s, {}), "MoCo v1 or v2 without its head", ""),
    "moco v3": (RESNET, lambda s: moco_v3(s, MLP), "MoCo v3", "module.predictor.0.weight"),
    "moco v3 vit": (
        VIT,
        lambda s: moco_v3(s, tensors("head.0.weight")),
        "MoCo v3",
        "module.base_encoder.head.0.weight",
    ),
    "moco v3 momentum": (
        VIT,
        lambda s: moco_v3(s, {}, base=False),
        "MoCo v3, momentum encoder",
        "module.predictor.0.weight",
    ),
    "moco v3 linear": (
        VIT,
        lambda s: {"state_dict": put("module.", s | tensors("head.weight")), **TRAINING},
        TRAINED,
        "module.head.weight",
    ),
    "insdis": (RESNET, lambda s: pycontrast(s, "head.0.weight"), INSDIS, "module.head.0.weight"),
    "pirl": (
        RESNET,
        lambda s: pycontrast(s, "head.0.weight", "head_jig.fc1.0.weight"),
        "PIRL (PyContrast)",
        "module.head_jig.fc1.0.weight",
    ),
    "infomin with ema": (
        RESNET,
        lambda s: pycontrast(s, "head.0.weight") | {"model_ema": put("encoder.", decoy(s))},
        INSDIS,
        "model_ema",
    ),
    "infomin ema alone": (
        RESNET,
        lambda s: {"model_ema": put("encoder.", s) | tensors("head.0.weight")},
        "PyContrast, momentum encoder",
        "head.0.weight",
    ),
    "cmc": (
        RESNET,
        lambda s: {"model": put("module.", put("encoder1.", s) | put("encoder2.", decoy(s)))},
        "CMC (PyContrast), encoder1",
        "module.encoder2.conv1.weight",
    ),
    "cmc encoder2": (
        RESNET,
        lambda s: {"model": put("module.encoder2.", s)},
        "CMC (PyContrast), encoder2",
        "",
    ),
    "swav": (RESNET, lambda s: swav(s, *SWAV_HEADS), "SwAV", "module.prototypes.weight"),
    "swav training": (
        RESNET,
        lambda s: {"state_dict": swav(s, *SWAV_HEADS), **TRAINING},
        "SwAV",
        "optimizer",
    ),
    "deepcluster-v2": (
        RESNET,
        lambda s: swav(s, *DC2_HEADS),
        "DeepCluster-v2",
        "module.prototypes.prototypes0.weight",
    ),
    "deepcluster-v2 training": (
        RESNET,
        lambda s: {"state_dict": swav(s, *DC2_HEADS), **TRAINING},
        "DeepCluster-v2",
        "optimizer",
    ),
    "simclr v1": ("resnet50", lambda s: {"state_dict": s | FC}, SIMCLR_V1, "fc.weight"),
    "not simclr v1, whose file holds nothing else": (
        "resnet50",
        lambda s: {"state_dict": s | FC, **TRAINING},
        TRAINED,
        "optimizer",
    ),
    "not simclr v1, which is a ResNet-50": (
        RESNET,
        lambda s: {"state_dict": s | FC},
        TRAINED,
        "fc.weight",
    ),
    "byol": (RESNET, untracked, "BYOL (converted)", ""),
    "byol with fc": (RESNET, lambda s: untracked(s) | FC, BYOL_OR_OLD, "fc.weight"),
    "dino release": (VIT, lambda s: s, "DINO or other ViT without a head", ""),
    "dino full": (
        VIT,
        lambda s: dino(s, "", student=put("module.backbone.", decoy(s))),
        "DINO, teacher",
        "head.mlp.0.weight",
    ),
    "dino full resnet": (
        RESNET,
        lambda s: dino(s, "module.", student=put("module.backbone.", decoy(s))),
        "DINO, teacher",
        "student",
    ),
    "dino student alone": (
        VIT,
        lambda s: {"student": put("module.backbone.", s)},
        "DINO, student",
        "",
    ),
    "barlow twins, vicreg release": (RESNET, lambda s: s, NO_HEAD, ""),
    "barlow twins training": (
        RESNET,
        lambda s: {"model": put("module.backbone.", s) | BARLOW_HEADS, **TRAINING},
        "Barlow Twins",
        "module.bn.running_mean",
    ),
    "vicreg training": (
        RESNET,
        lambda s: {"model": put("backbone.", s) | tensors("projector.0.weight")},
        "VICReg",
        "projector.0.weight",
    ),
    "vissl": (RESNET, lambda s: vissl(put("_feature_blocks.", s)), "VISSL", ""),
    "vissl vit": (VIT, vissl, "VISSL", ""),
    "supcontrast": (
        RESNET,
        lambda s: {"model": put("encoder.", s) | tensors("head.0.weight"), **TRAINING},
        "SupContrast",
        "head.0.weight",
    ),
    "supcontrast, many GPUs": (
        RESNET,
        lambda s: {"model": put("encoder.module.", s) | tensors("head.0.weight")},
        "SupContrast",
        "head.0.weight",
    ),
    "lightning": (RESNET, lambda s: {"state_dict": put("backbone.", s)}, LIGHTNING, ""),
    "torchvision": (RESNET, lambda s: OrderedDict(s | FC), TORCHVISION, "fc.bias"),
    "timm": (VIT, lambda s: s | tensors("head.weight"), "supervised (timm)", "head.weight"),
    "timm, norm in head": (
        "timm:test_convnext",
        lambda s: s | tensors("head.fc.weight"),
        "supervised (timm)",
        "head.fc.weight",
    ),
    "timm, convolution in head": (
        "timm:efficientvit_b0",
        lambda s: s | tensors("head.classifier.4.weight"),
        "supervised (timm)",
        "head.classifier.4.weight",
    ),
    "timm, classifier": (
        "timm:test_efficientnet",
        lambda s: s | tensors("classifier.weight"),
        "supervised (timm)",
        "classifier.weight",
    ),
    "mae": (VIT, lambda s: {"model": s | tensors("mask_token")}, TRAINED_MODEL, "mask_token"),
}


def save(path, contents, **options):
    torch.save(contents, path, **options)
    return path


def fresh(name):
    torch.manual_seed(99)
    return build_encoder(name)


def assert_holds(encoder, state):
    own = encoder.state_dict()
    assert own.keys() == state.keys()
    for name, value in own.items():
        assert torch.equal(value, state[name]), name


def message(call, *args, **options):
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text
    return text


@pytest.mark.parametrize("case", LAYOUTS)
def test_each_layout_is_recognised_and_loaded(case, tmp_path):
    name, layout, expected, ignored = LAYOUTS[case]
    state = state_of(name)
    encoder = fresh(name)
    report = load_pretrained(save(tmp_path / "any.pth.tar", layout(state)), encoder)
    assert report.format == expected
    # A module's own num_batches_tracked, zero, stays where the file has none.
    zero = {key: torch.zeros_like(value) for key, value in state.items() if "batches" in key}
    assert_holds(encoder, state | zero if case.startswith("byol") else state)
    assert report.loaded == len(state) - (len(zero) if case.startswith("byol") else 0)
    assert report.parameters == sum(value.numel() for value in encoder.parameters())
    assert not ignored or ignored in report.ignored
    assert not [name for name in report.ignored if name in state]


def test_what_normalisation_each_format_brings(tmp_path):
    def loaded(case, **options):
        name, layout, _, _ = LAYOUTS[case]
        return load_pretrained(
            save(tmp_path / "f.pt", layout(state_of(name))), fresh(name), **options
        )

    assert loaded("moco v2").normalisation == IMAGENET
    simclr = loaded("simclr v1")
    assert simclr.normalisation == NO_NORMALISATION
    assert "assumed to be SimCLR v1" in str(simclr) and "--normalisation" in str(simclr)
    assert loaded("not simclr v1, which is a ResNet-50").normalisation == IMAGENET
    assert loaded("simclr v1", normalisation=HALF).normalisation == HALF
    assert loaded("dino release").normalisation == IMAGENET


def test_supervised_timm_files_bring_timms_normalisation(tmp_path):
    name = "timm:vit_tiny_patch16_224"  # timm's mean and std for it are 0.5
    file = save(tmp_path / "f.pt", state_of(name) | tensors("head.weight"))
    report = load_pretrained(file, fresh(name))
    assert report.normalisation == HALF
    assert "timm's for vit_tiny_patch16_224" in report.note
    overridden = load_pretrained(file, fresh(name), normalisation=IMAGENET)
    assert overridden.normalisation == IMAGENET and overridden.note == ""


@pytest.mark.parametrize(
    ("case", "note"),
    [
        ("moco v3", "took state_dict/base_encoder.* and not state_dict/momentum_encoder.*"),
        ("dino full", "took teacher/backbone.* and not student/backbone.*"),
        ("infomin with ema", "took model/encoder.* and not model_ema/encoder.*"),
        ("cmc", "took model/encoder1.* and not model/encoder2.*"),
        ("moco v2", ""),
        ("supcontrast, many GPUs", ""),
    ],
)
def test_a_choice_between_encoders_is_told(case, note, tmp_path):
    name, layout, _, _ = LAYOUTS[case]
    file = save(tmp_path / "f.pt", layout(state_of(name)))
    assert load_pretrained(file, fresh(name)).note == note


def test_report_says_what_was_done(tmp_path):
    report = load_pretrained(save(tmp_path / "f.pt", moco(state_of(RESNET), MLP)), fresh(RESNET))
    first, second, third = report.lines()
    assert first == f"loaded {len(state_of(RESNET))} tensors (0.7 M parameters) from MoCo v2"
    assert second.startswith(f"ignored {len(report.ignored)}: module.encoder_q.fc.0.weight, ")
    assert third == "input normalisation: ImageNet mean and std"
    assert str(report) == "\n".join(report.lines())


# --- this project's own files


def test_own_model_with_its_metadata(tmp_path):
    state = state_of("resnet18")
    facts = {
        "encoder": "resnet18",
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "classes": ["cat", "dog"],
        "image_size": 48,
        "method": "core_tuning",
    }
    file = tmp_path / "model.safetensors"
    save_file(state | FC, file, metadata={"core_tuning": json.dumps(facts)})
    encoder = fresh("resnet18")
    report = load_pretrained(file, encoder)
    assert_holds(encoder, state)
    assert report.format == "core-tuning model"
    assert report.normalisation == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert report.ignored == ["fc.bias", "fc.weight"]
    assert report.note == "encoder resnet18, method core_tuning, classes 2, image size 48"
    text = "\n".join(describe(file))
    assert "ResNet-18, 11.2 M parameters, features 512" in text
    assert report.note in text and "mean 0.1, 0.2, 0.3; std 0.4, 0.5, 0.6" in text


def test_safetensors_of_others(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file(state_of(RESNET) | FC, file)
    encoder = fresh(RESNET)
    assert load_pretrained(file, encoder).format == TORCHVISION
    assert_holds(encoder, state_of(RESNET))


@pytest.mark.parametrize("facts", ["not JSON", "[1]", '{"mean": "abc"}'])
def test_own_model_with_damaged_metadata(facts, tmp_path):
    file = tmp_path / "model.safetensors"
    save_file(state_of(RESNET), file, metadata={"core_tuning": facts})
    assert "expected a JSON object" in message(load_pretrained, file, fresh(RESNET))


def run_checkpoint(version=1):
    model = ImageEncoder(fresh(RESNET), Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    model.encoder.load_state_dict(state_of(RESNET))
    return {
        "core_tuning_checkpoint": version,
        "image_encoder": model.state_dict(),
        "classifier": {"weight": torch.zeros(7, 128), "bias": torch.zeros(7)},
        "objective": tensors("head.0.weight"),
        "generators": {"numpy": np.random.RandomState(0).get_state()},
        "step": 120,
        "config": {"encoder": RESNET, "method": "core_tuning"},
        **TRAINING,
    }


def test_own_run_checkpoint(tmp_path):
    file = save(tmp_path / "checkpoint.pt", run_checkpoint())
    encoder = fresh(RESNET)
    report = load_pretrained(file, encoder)
    assert_holds(encoder, state_of(RESNET))
    assert report.format == "core-tuning run checkpoint"
    assert report.normalisation == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert report.ignored == ["classifier", "objective", "optimizer"]
    assert report.note == "encoder small_resnet, method core_tuning, classes 7, step 120"


def test_own_run_checkpoint_that_cannot_be_used(tmp_path):
    later = save(tmp_path / "later.pt", run_checkpoint(version=2))
    assert "version 2: expected version 1" in message(load_pretrained, later, fresh(RESNET))
    bare = run_checkpoint()
    del bare["image_encoder"]["mean"]
    text = message(load_pretrained, save(tmp_path / "bare.pt", bare), fresh(RESNET))
    assert "without an encoder, 'mean' or 'std'" in text


# --- reading files


class MakesDirectory:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_run(zipped, tmp_path):
    victim = tmp_path / "made"
    contents = {"state_dict": state_of(RESNET) | FC, "opt": MakesDirectory(victim)}
    file = save(tmp_path / "f.pth", contents, _use_new_zipfile_serialization=zipped)
    text = message(load_pretrained, file, fresh(RESNET))
    assert not victim.exists()
    assert "mkdir, which could run code and is not loaded" in text
    assert "torch.save(model.state_dict(), FILE)" in text
    # The same bytes do run where weights_only does not guard them.
    torch.load(file, weights_only=False)
    assert victim.exists()


def test_whole_modules_are_refused(tmp_path):
    text = message(read_checkpoint, save(tmp_path / "f.pt", torch.nn.Linear(2, 2)))
    assert "holds torch.nn.modules.linear.Linear, which could run code" in text


def test_arrays_of_objects_are_refused(tmp_path):
    text = message(read_checkpoint, save(tmp_path / "f.pt", np.array([{}, []], dtype=object)))
    assert "ObjectDType" in text and "could run code" in text


HARMLESS = {
    "namespace": argparse.Namespace(lr=0.1, name="moco", sizes=[1, 2]),
    "float": np.float64(71.5),
    "half": np.float16(0.5),
    "int": np.int64(3),
    "bool": np.bool_(True),
    "text": np.str_("abc"),
    "array": np.arange(6, dtype=np.float32).reshape(2, 3),
    "dtype": np.dtype("int32"),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", HARMLESS)
def test_harmless_values_of_old_checkpoints_are_read(kind, zipped, tmp_path):
    contents = {"state_dict": state_of(RESNET) | FC, "opt": HARMLESS[kind]}
    file = save(tmp_path / "f.tar", contents, _use_new_zipfile_serialization=zipped)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)  # torch alone refuses it
    read = read_checkpoint(file)["opt"]
    assert type(read) is type(HARMLESS[kind])
    assert np.all(read == HARMLESS[kind])


def test_paths_are_read_as_pure_paths(tmp_path):
    contents = argparse.Namespace(data=tmp_path, resume=pathlib.PureWindowsPath("C:/a"))
    read = read_checkpoint(save(tmp_path / "f.pt", {"opt": contents}))["opt"]
    assert str(read.data) == str(tmp_path) and str(read.resume) == "C:\\a"


@pytest.mark.parametrize("name", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numpy_numbers_of_either_major_version(name, tmp_path):
    file = save(tmp_path / "f.pt", {"a": np.float64(2.5)}, _use_new_zipfile_serialization=False)
    raw = file.read_bytes()
    here = b"numpy._core.multiarray" if b"numpy._core" in raw else b"numpy.core.multiarray"
    assert raw.count(here) == 1
    file.write_bytes(raw.replace(here, name))
    assert read_checkpoint(file) == {"a": 2.5}


@pytest.mark.parametrize("suffix", ["pth", "pth.tar", "bin", "zip"])
@pytest.mark.parametrize("zipped", [True, False])
def test_the_name_does_not_matter(suffix, zipped, tmp_path):
    file = tmp_path / f"f.{suffix}"
    save(file, moco(state_of(RESNET), MLP), _use_new_zipfile_serialization=zipped)
    encoder = fresh(RESNET)
    assert load_pretrained(file, encoder).format == "MoCo v2"
    assert_holds(encoder, state_of(RESNET))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("photo.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF" * 9, "not a PyTorch checkpoint (it begins"),
        ("notes.pth", b"hello, I am no checkpoint\n", "begins with b'hello, I am no c'"),
        ("page.pth", b"<!DOCTYPE html><html></html>", "begins with b'<!DOCTYPE html><'"),
        ("empty.pth", b"", "it is empty"),
        ("other.pth", pickle.dumps([1, 2], protocol=2), "cannot be read"),
        ("broken.pth", b"PK\x03\x04" + b"\0" * 100, "cannot be read"),
        ("empty.safetensors", b"", "expected a whole safetensors file"),
        ("text.safetensors", b"hello, I am no checkpoint\n", "expected a whole safetensors file"),
    ],
)
def test_files_that_are_no_checkpoints(name, content, reason, tmp_path):
    file = tmp_path / name
    file.write_bytes(content)
    text = message(read_checkpoint, file)
    assert text.startswith(f"'{file}'") and reason in text


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_files(kind, share, tmp_path):
    file = tmp_path / ("f.safetensors" if kind == "safetensors" else "f.pth")
    if kind == "safetensors":
        save_file(state_of(RESNET), file)
    else:
        save(file, state_of(RESNET), _use_new_zipfile_serialization=kind == "zip")
    os.truncate(file, int(file.stat().st_size * share))
    text = message(load_pretrained, file, fresh(RESNET))
    assert "cannot be read" in text and "download or copy it again" in text


def test_missing_files_and_directories(tmp_path):
    text = message(read_checkpoint, tmp_path / "no.pth")
    assert "no.pth' cannot be read (No such file or directory)" in text
    assert "is a directory" in message(read_checkpoint, tmp_path)
    (tmp_path / "d.safetensors").mkdir()
    assert "is a directory" in message(read_checkpoint, tmp_path / "d.safetensors")


# --- what does not fit


def refusal(name, contents, tmp_path):
    """Try to load, and hold that the encoder is unchanged."""
    encoder = fresh(name)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    text = message(load_pretrained, save(tmp_path / "f.pth", contents), encoder)
    assert_holds(encoder, before)
    return text


@pytest.mark.parametrize(
    ("held", "wanted", "phrases"),
    [
        (
            "resnet18",
            "resnet34",
            [
                "a ResNet-34:",
                "tensors missing (80): layer1.2.conv1.weight",
                "pass `--encoder resnet18`",
            ],
        ),
        ("resnet34", "resnet18", ["without a place in it (80): layer1.2", "`--encoder resnet34`"]),
        (
            "resnet18",
            "resnet50",
            ["layer1.0.conv3.weight (nearest in the file layer1.0.conv", "`--encoder resnet18`"],
        ),
        ("resnet50", "resnet18", ["it holds a ResNet-50", "`--encoder resnet50`"]),
        ("resnext50_32x4d", "resnet50", ["another shape", "`--encoder resnext50_32x4d`"]),
        (RESNET, "resnet18", ["conv1.weight is (16, 3, 3, 3)", "`--encoder small_resnet`"]),
        ("timm:vit_tiny_patch16_224", "resnet18", ["`--encoder timm:vit_tiny_patch16_224`"]),
        ("resnet18", "timm:vit_tiny_patch16_224", ["a ViT of patch 16, width 192, depth 12"]),
        (VIT, "timm:vit_tiny_patch16_224", ["it holds a ViT of patch 16, width 64"]),
        (
            "timm:deit_tiny_distilled_patch16_224",
            "timm:vit_tiny_patch16_224",
            ["`--encoder timm:deit_tiny_distilled_patch16_224`"],
        ),
    ],
)
def test_another_architecture_is_named(held, wanted, phrases, tmp_path):
    text = refusal(wanted, state_of(held), tmp_path)
    assert all(phrase in text for phrase in phrases), text


def test_a_missing_or_reshaped_tensor_is_refused(tmp_path):
    for name in ("layer3.0.bn1.running_var", "layer2.1.conv1.weight", "bn1.bias"):
        state = dict(state_of(RESNET))
        value = state.pop(name)
        text = refusal(RESNET, state, tmp_path)
        assert f"tensors missing (1): {name} (nearest in the file" in text
        text = refusal(RESNET, state | {name: value[:3]}, tmp_path)
        assert f"of another shape (1): {name} is (3," in text


def test_unknown_prefixes_are_named_as_the_nearest(tmp_path):
    text = refusal(RESNET, put("net.trunk.", state_of(RESNET)), tmp_path)
    assert "conv1.weight (nearest in the file net.trunk.conv1.weight)" in text


def test_what_would_be_cut_off_is_refused_and_what_would_not_is_told(tmp_path):
    state = state_of(VIT)
    deeper = {key.replace("blocks.0", "blocks.77"): v for key, v in state.items() if "cks.0" in key}
    assert "): blocks.77" in refusal(VIT, state | deeper, tmp_path)
    # A norm before the blocks, as in CLIP's, changes what the encoder computes.
    assert "without a place in it (1): norm_pre.weight" in refusal(
        VIT, state | tensors("norm_pre.weight"), tmp_path
    )
    file = save(tmp_path / "f.pt", state | tensors("my_probe.weight"))
    assert "my_probe.weight" in load_pretrained(file, fresh(VIT)).ignored


def test_position_embeddings_of_another_size(tmp_path):
    state = state_of("timm:vit_tiny_patch16_224")
    text = refusal(
        "timm:vit_tiny_patch16_224", state | {"pos_embed": torch.zeros(1, 50, 192)}, tmp_path
    )
    assert "pos_embed is (1, 50, 192) and not (1, 197, 192)" in text
    assert "pass the timm encoder of the image size that it was trained at" in text


@pytest.mark.parametrize(("channels", "module"), [(1, "encoder1"), (2, "encoder2")])
def test_cmc_of_two_colour_spaces_is_refused(channels, module, tmp_path):
    state = state_of("resnet18") | {"conv1.weight": torch.zeros(64, channels, 7, 7)}
    text = refusal("resnet18", {"model": put(f"module.{module}.", state)}, tmp_path)
    assert f"its stem takes {channels} of an image's 3 channels" in text


def test_supcontrast_stem_for_small_images_is_refused(tmp_path):
    state = {k.replace("downsample", "shortcut"): v for k, v in state_of("resnet18").items()}
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    text = refusal("resnet18", {"model": put("encoder.", state)}, tmp_path)
    assert "missing (15): layer2.0.downsample.0.weight" in text
    assert "its stem is a 3x3 convolution for small images" in text


def test_simclr_v2_is_refused(tmp_path):
    contents = {
        "resnet": tensors("net.0.0.weight", "fc.weight"),
        "head": tensors("layers.0.weight"),
    }
    assert "is a SimCLR v2 checkpoint" in refusal(RESNET, contents, tmp_path)


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ([1, 2], "holds a list: expected a dictionary of tensors"),
        (torch.zeros(2), "holds a Tensor"),
        ({"epoch": 3, "net": {"conv1.weight": torch.zeros(2)}}, "among its keys (epoch, net)"),
        ({}, "no encoder that is recognised"),
        ({"state_dict": {"module.queue": torch.zeros(2)}}, "among its keys (state_dict)"),
    ],
)
def test_contents_without_an_encoder(contents, reason, tmp_path):
    assert reason in refusal(RESNET, contents, tmp_path)


# --- inspect


@pytest.mark.parametrize(
    ("encoder", "title"),
    [
        ("resnet50", "ResNet-50"),
        ("resnet101", "ResNet-101"),
        ("resnext101_64x4d", "ResNeXt-101 64x4d"),
        (RESNET, "small ResNet"),
        ("timm:vit_small_patch16_224", "ViT of patch 16, width 384, depth 12"),
        ("timm:vit_tiny_patch16_384", "ViT of patch 16, width 192, depth 12"),
        ("timm:vit_small_patch8_224", "ViT of patch 8, width 384, depth 12"),
    ],
)
def test_architectures_are_guessed_from_shapes(encoder, title):
    with torch.device("meta"):
        module = build_encoder(encoder)
    guess = guess_architecture(module.state_dict())
    assert guess.description == title and guess.encoder == encoder


def test_inspect_says_how_to_use_a_file(tmp_path, capsys):
    file = save(tmp_path / "my file.pth", moco(state_of("resnet50"), MLP))
    assert main([str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{file}: {file.stat().st_size / 1e6:.1f} MB, MoCo v2"
    assert lines[1] == "architecture: ResNet-50, 23.5 M parameters, features 2048"
    assert lines[2].startswith("tensors: 318 of the encoder; ignored 329: module.encoder_q.fc.0.w")
    assert lines[3] == "input normalisation: ImageNet mean and std"
    assert lines[4] == f"use: --encoder resnet50 --pretrained '{file}'"


def test_inspect_of_an_unknown_architecture(tmp_path):
    file = save(tmp_path / "f.pth", state_of("timm:test_convnext"))
    text = "\n".join(describe(file))
    assert "network of unknown architecture" in text and "--encoder timm:NAME" in text
    # Its head.norm is the encoder's, and is no sign of a classification head.
    assert NO_HEAD in text and "ignored" not in text


def test_inspect_refuses_what_loading_refuses(tmp_path):
    file = tmp_path / "f.pth"
    file.write_bytes(b"")
    assert "it is empty" in message(main, [str(file)])


def test_inspect_imports_torch_only_when_it_runs():
    check = "import sys, core_tuning.inspect_checkpoint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
