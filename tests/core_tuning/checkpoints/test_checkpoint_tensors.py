"""Tensors that no trained encoder has are refused by name; what a trained one may have loads."""

import pytest
import torch

from core_tuning.checkpoints.describe import describe
from core_tuning.checkpoints.load import load_pretrained
from core_tuning.encoders import build_encoder

RESNET = "small_resnet"
NAME = "layer2.0.conv1.weight"
# Of the filters under that name, by what is said of them.
REFUSED = {
    "which is not finite": lambda v: v.index_fill(0, torch.tensor([3]), float("nan")),
    "which is not finite, infinite": lambda v: v.index_fill(1, torch.tensor([3]), float("inf")),
    "which is not finite, float64": lambda v: v.double() * 1e300,
    "which is 0 everywhere": torch.zeros_like,
    "which is 0.25 everywhere": lambda v: torch.full_like(v, 0.25),
    "which is 1 everywhere": lambda v: torch.ones(1, 1, 1, 1).expand(v.shape),
    "which is of the type complex64": lambda v: v.to(torch.complex64),
    "which is of the type int8": lambda v: (100 * v).to(torch.int8),
    "which is of the type bool": lambda v: v > 0.5,
    "which is of the type float8_e4m3fn": lambda v: v.to(torch.float8_e4m3fn),
    "which is sparse_coo": lambda v: v.to_sparse(),
    "which is sparse_csr": lambda v: v.flatten(1).to_sparse_csr(),
    "which is nested": lambda v: torch.nested.nested_tensor([v[0], v[1, :2]]),
    "which is quantised": lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8),
    "which has no values (it is on the device meta)": lambda v: v.to("meta"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("said", REFUSED)
def test_a_tensor_that_no_trained_encoder_has(kit, said, tmp_path):
    state = kit.state_of(RESNET)
    state = state | {NAME: REFUSED[said](state[NAME])}
    file = kit.save(tmp_path / "f.pth", kit.swav(state, "prototypes.weight"))
    encoder = kit.fresh(RESNET)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    expected = f"f.pth' has the tensor {NAME}, {said.split(', ')[0]}: expected trained weights"
    assert expected in kit.message(load_pretrained, file, encoder)
    kit.assert_holds(encoder, before)
    assert expected in kit.message(describe, file)


def test_parts_that_overlap_are_not_searched(kit, tmp_path):
    """A small file may hold a view of 8 * 10^9 numbers."""
    overlapping = torch.rand(10_000).as_strided((2000, 2000, 2000), (1, 1, 1))
    file = kit.save(tmp_path / "f.pth", kit.state_of(RESNET) | {"x.weight": overlapping})
    assert "x.weight, whose parts overlap" in kit.message(describe, file)
    expanded = torch.rand(1, 1, 1).expand(2000, 2000, 2000)
    file = kit.save(tmp_path / "f.pth", kit.state_of(RESNET) | {"x.weight": expanded})
    assert "x.weight, which is 0." in kit.message(describe, file)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_types_are_converted(kit, dtype, tmp_path):
    state = kit.state_of(RESNET)
    other = {name: value.to(dtype) for name, value in state.items()}  # num_batches_tracked too
    encoder = kit.fresh(RESNET)
    load_pretrained(kit.save(tmp_path / "f.pth", other), encoder)
    kit.assert_holds(encoder, {name: other[name].to(value.dtype) for name, value in state.items()})


def test_what_was_just_initialised_is_a_network(kit, tmp_path):
    """Scales of 1 and of 0, shifts of 0, statistics of 0 and 1: all of them vectors."""
    for name in (
        RESNET,
        "resnet18",
        "timm:test_convnext",
        "timm:test_vit",
        "timm:test_efficientnet",
    ):
        state = build_encoder(name).state_dict()
        for key in [key for key in state if key.endswith("bn2.weight")]:
            state[key] = torch.zeros_like(state[key])
        file = kit.save(tmp_path / "f.pth", state)
        describe(file)
        encoder = kit.fresh(name)
        load_pretrained(file, encoder)
        kit.assert_holds(encoder, state)


@pytest.mark.parametrize("shape", [(1, 1, 64), (64, 1, 1), (64, 1, 1, 1), (64,), ()])
def test_one_value_is_refused_in_matrices_alone(kit, shape, tmp_path):
    """A class token, a LayerScale or a gain of 0 is what some networks begin with."""
    file = kit.save(tmp_path / "f.pth", kit.state_of(RESNET) | {"x.weight": torch.zeros(shape)})
    assert "x.weight" not in "".join(describe(file))


def test_what_is_not_the_encoders_may_be_anything(kit, tmp_path):
    state = kit.state_of(RESNET)
    odd = {"queue": torch.zeros(4, 4), "fc.weight": torch.full((4, 4), float("nan"))}
    file = kit.save(tmp_path / "f.pth", kit.moco(state, odd))
    encoder = kit.fresh(RESNET)
    load_pretrained(file, encoder)
    kit.assert_holds(encoder, state)
