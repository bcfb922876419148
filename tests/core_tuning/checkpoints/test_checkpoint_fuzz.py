"""`inspect` says one thing or the other of any file whatever, and never stops with a traceback."""

import io
import json
import random

import pytest
import torch
from safetensors.torch import save as to_safetensors

from core_tuning.checkpoints.describe import describe
from core_tuning.errors import UserError

TOKENS = (
    b"FloatStorage", b"weight", b"conv1", b"encoder", b"storage", b"cpu", b"mean", b"F32",
    b"_rebuild_tensor_v2", b"__metadata__",
)  # fmt: skip
OTHERS = (
    b"IntStorage", b"HalfStorage", b"BoolStorage", b"bias", b"\xff\xfe", b"", b"meta", b"1e9",
    b"I64", b"_rebuild_meta_tensor_no_storage", b"\n", b"[[[[[[[[",
)  # fmt: skip


def saved(contents, *, zipped):
    file = io.BytesIO()
    torch.save(contents, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@pytest.fixture(scope="module")
def originals(kit):
    """Small files of each kind, by suffix."""
    whole = kit.state_of("small_resnet")
    state = {key: value for key, value in whole.items() if key.startswith(("conv1", "layer1.0"))}
    vit = {"cls_token": torch.rand(1, 1, 8), "pos_embed": torch.rand(1, 5, 8)}
    vit |= {"patch_embed.proj.weight": torch.rand(8, 3, 2, 2)}
    vit |= {"blocks.0.attn.qkv.weight": torch.rand(24, 8)}
    facts = {"encoder": "small_resnet", "classes": ["a"], "mean": [0.1] * 3, "std": [0.2] * 3}
    run = {
        "core_tuning_checkpoint": 1,
        "image_encoder": kit.put("encoder.", state)
        | {"mean": torch.rand(3, 1, 1), "std": torch.rand(3, 1, 1)},
        "classifier": {"weight": torch.rand(2, 3)},
        "config": facts,
    }
    dino = {"teacher": kit.put("backbone.", vit), "student": kit.put("module.backbone.", vit)}
    return [
        (".safetensors", to_safetensors(state, metadata={"core_tuning": json.dumps(facts)})),
        (".pt", saved(kit.moco(state, {}), zipped=True)),
        (".pt", saved(kit.moco(state, {}), zipped=False)),
        (".pt", saved(run, zipped=True)),
        (".pt", saved(run, zipped=False)),
        (".pt", saved(dino, zipped=False)),
        (".pt", saved(kit.moco_v3(vit, {}, base=False), zipped=False)),
    ]


def mutated(contents, draw):
    """Cut, overwrite, replace, delete from or insert into the bytes of a file."""
    changed = bytearray(contents)
    place = draw.randrange(len(changed))
    kind = draw.randrange(6)
    if kind == 0:
        return contents[:place]
    if kind == 1:
        return contents.replace(draw.choice(TOKENS), draw.choice(OTHERS))
    if kind == 2:
        del changed[place : place + draw.randrange(1, 200)]
    elif kind == 3:
        changed[place:place] = draw.randbytes(draw.randrange(1, 100))
    else:
        # Where names and structure are, or anywhere.
        end = min(len(changed), 2000) if kind == 4 else len(changed)
        for _ in range(draw.choice((1, 2, 5, 50))):
            changed[draw.randrange(end)] = draw.randrange(256)
    return bytes(changed)


def test_mutated_files(originals, tmp_path):
    draw = random.Random(0)
    described = 0
    for _ in range(200):
        suffix, contents = draw.choice(originals)
        file = tmp_path / f"f{suffix}"
        file.write_bytes(mutated(contents, draw))
        try:
            said = describe(file)
            described += 1
        except UserError as error:
            said = [str(error)]
            assert said[0].endswith((".", "?"))
        assert all(line.isprintable() for line in said)
    # Some of the files are damaged in values alone; the others say that they are.
    assert 10 < described < 100
