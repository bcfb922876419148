import argparse
import os
import pathlib
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from core_tuning.checkpoints import load_pretrained, read_checkpoint

RESNET = "small_resnet"


class MakesDirectory:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_run(kit, zipped, tmp_path):
    victim = tmp_path / "made"
    contents = {"state_dict": kit.state_of(RESNET) | kit.FC, "opt": MakesDirectory(victim)}
    file = kit.save(tmp_path / "f.pth", contents, _use_new_zipfile_serialization=zipped)
    text = kit.message(load_pretrained, file, kit.fresh(RESNET))
    assert not victim.exists()
    assert "mkdir, which could run code and is not loaded" in text
    assert "torch.save(model.state_dict(), FILE)" in text
    # The same bytes do run where weights_only does not guard them.
    torch.load(file, weights_only=False)
    assert victim.exists()


def test_whole_modules_are_refused(kit, tmp_path):
    text = kit.message(read_checkpoint, kit.save(tmp_path / "f.pt", torch.nn.Linear(2, 2)))
    assert "holds torch.nn.modules.linear.Linear, which could run code" in text


def test_arrays_of_objects_are_refused(kit, tmp_path):
    text = kit.message(
        read_checkpoint, kit.save(tmp_path / "f.pt", np.array([{}, []], dtype=object))
    )
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
def test_harmless_values_of_old_checkpoints_are_read(kit, kind, zipped, tmp_path):
    contents = {"state_dict": kit.state_of(RESNET) | kit.FC, "opt": HARMLESS[kind]}
    file = kit.save(tmp_path / "f.tar", contents, _use_new_zipfile_serialization=zipped)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)  # torch alone refuses it
    read = read_checkpoint(file)["opt"]
    assert type(read) is type(HARMLESS[kind])
    assert np.all(read == HARMLESS[kind])


def test_paths_are_read_as_pure_paths(kit, tmp_path):
    contents = argparse.Namespace(data=tmp_path, resume=pathlib.PureWindowsPath("C:/a"))
    read = read_checkpoint(kit.save(tmp_path / "f.pt", {"opt": contents}))["opt"]
    assert str(read.data) == str(tmp_path) and str(read.resume) == "C:\\a"


@pytest.mark.parametrize("name", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numpy_numbers_of_either_major_version(kit, name, tmp_path):
    file = kit.save(tmp_path / "f.pt", {"a": np.float64(2.5)}, _use_new_zipfile_serialization=False)
    raw = file.read_bytes()
    here = b"numpy._core.multiarray" if b"numpy._core" in raw else b"numpy.core.multiarray"
    assert raw.count(here) == 1
    file.write_bytes(raw.replace(here, name))
    assert read_checkpoint(file) == {"a": 2.5}


@pytest.mark.parametrize("suffix", ["pth", "pth.tar", "bin", "zip"])
@pytest.mark.parametrize("zipped", [True, False])
def test_the_name_does_not_matter(kit, suffix, zipped, tmp_path):
    file = tmp_path / f"f.{suffix}"
    kit.save(file, kit.moco(kit.state_of(RESNET), kit.MLP), _use_new_zipfile_serialization=zipped)
    encoder = kit.fresh(RESNET)
    assert load_pretrained(file, encoder).format == "MoCo v2"
    kit.assert_holds(encoder, kit.state_of(RESNET))


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
def test_files_that_are_no_checkpoints(kit, name, content, reason, tmp_path):
    file = tmp_path / name
    file.write_bytes(content)
    text = kit.message(read_checkpoint, file)
    assert text.startswith(f"'{file}'") and reason in text


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_files(kit, kind, share, tmp_path):
    file = tmp_path / ("f.safetensors" if kind == "safetensors" else "f.pth")
    if kind == "safetensors":
        save_file(kit.state_of(RESNET), file)
    else:
        kit.save(file, kit.state_of(RESNET), _use_new_zipfile_serialization=kind == "zip")
    os.truncate(file, int(file.stat().st_size * share))
    text = kit.message(load_pretrained, file, kit.fresh(RESNET))
    assert "cannot be read" in text and "download or copy it again" in text


def test_missing_files_and_directories(kit, tmp_path):
    text = kit.message(read_checkpoint, tmp_path / "no.pth")
    assert "no.pth' cannot be read (No such file or directory)" in text
    assert "is a directory" in kit.message(read_checkpoint, tmp_path)
    (tmp_path / "d.safetensors").mkdir()
    assert "is a directory" in kit.message(read_checkpoint, tmp_path / "d.safetensors")
