import argparse
import errno
import os
import pathlib
import pickle
import socket
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from core_tuning.checkpoints.describe import describe
from core_tuning.checkpoints.load import load_pretrained
from core_tuning.checkpoints.read import read_checkpoint
from core_tuning.checkpoints.sources import load_image_encoder

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


def test_paths_that_are_no_files(kit, monkeypatch, tmp_path):
    (tmp_path / "d.safetensors").mkdir()
    os.mkfifo(tmp_path / "pipe.pth")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")  # not by its whole path, which is too long for one
    for path, said in [
        (tmp_path / "no.pth", "no.pth does not exist: check the path"),
        (tmp_path / "no" / "no.pth", "no.pth does not exist: check the path"),
        (tmp_path, "is a folder: expected an ordinary file"),
        (tmp_path / "d.safetensors", "is a folder"),
        (tmp_path / "pipe.pth", "is a pipe, a socket or a device"),
        (tmp_path / "socket", "is a pipe, a socket or a device"),
        ("/dev/zero", "/dev/zero is a pipe, a socket or a device"),
        ("x" * 300, "File name too long"),
        ("a\0b.pth", "embedded null byte"),
    ]:
        assert said in kit.message(read_checkpoint, path)
        assert said in kit.message(load_image_encoder, RESNET, str(path))
        assert said in kit.message(describe, path)


def test_a_file_that_may_not_be_read(kit, monkeypatch, tmp_path):
    file = kit.save(tmp_path / "f.pt", {})

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied", str(file))

    monkeypatch.setattr(pathlib.Path, "open", refuse)
    assert "f.pt' cannot be read (Permission denied)" in kit.message(read_checkpoint, file)


def zipped(path, pickled, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
    return path


def test_deep_and_endless_pickles(kit, tmp_path):
    depth = 100_000
    lists = b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."
    assert "holds a list" in kit.message(describe, zipped(tmp_path / "deep.pt", lists))
    # {"a": {"a": ...}}, and a dictionary that is its own value.
    mappings = b"\x80\x02" + b"}U\x01a" * depth + b"}" + b"s" * depth + b"."
    itself = b"\x80\x02}q\x00U\x01ah\x00s."
    for name, pickled in (("mappings.pt", mappings), ("itself.pt", itself)):
        text = kit.message(describe, zipped(tmp_path / name, pickled))
        assert "no encoder that is recognised among its keys (a)" in text
    # Where an encoder is found, the rest is searched for what is ignored and for another one.
    bomb = {"student": kit.put("backbone.", kit.state_of(RESNET))}
    for _ in range(40):
        bomb = {**bomb, "a": {"a": bomb.get("a", {}), "b": bomb.get("a", {})}}
    bomb["a"]["itself"] = bomb["a"]
    assert "DINO, student" in describe(kit.save(tmp_path / "bomb.pt", bomb))[0]


def test_archives_that_would_fill_the_memory(kit, tmp_path):
    zeros = b"\x80\x02" + b"\0" * 10_000_000
    file = zipped(tmp_path / "bomb.pt", zeros, zipfile.ZIP_DEFLATED)
    assert "bomb.pt' would unpack to 10 MB" in kit.message(read_checkpoint, file)


def test_torchscript_is_refused(kit, tmp_path):
    file = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    assert "holds TorchScript, which could run code" in kit.message(read_checkpoint, file)


def test_names_that_cannot_be_printed(kit, tmp_path):
    state = kit.state_of(RESNET) | {"a\nb": torch.rand(2), "\ud800": torch.rand(2)}
    file = kit.save(tmp_path / "f\udcff\n.pt", {"state_dict": state})
    lines = describe(file)
    assert all(line.isprintable() for line in lines)
    state = {"\ud800.weight": torch.rand(2), "y" * 10**6: torch.rand(2)}
    text = kit.message(describe, kit.save(tmp_path / "g.pt", {"x\n": 1, "nets": state}))
    assert "among its keys (x\\n, nets)" in text
