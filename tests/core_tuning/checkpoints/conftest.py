"""Write a checkpoint as its method's release lays it out, and check what reading it gives."""

import functools
import types

import pytest
import torch

from core_tuning.encoders import build_encoder
from core_tuning.errors import UserError


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


@pytest.fixture(scope="session")
def kit():
    """The helpers above, which test modules cannot import."""
    return types.SimpleNamespace(
        state_of=state_of,
        decoy=decoy,
        put=put,
        untracked=untracked,
        tensors=tensors,
        FC=FC,
        MLP=MLP,
        TRAINING=TRAINING,
        moco=moco,
        moco_v3=moco_v3,
        pycontrast=pycontrast,
        swav=swav,
        vissl=vissl,
        dino=dino,
        save=save,
        fresh=fresh,
        assert_holds=assert_holds,
        message=message,
    )
