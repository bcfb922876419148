"""`core-tuning finetune` and `evaluate`, end to end on data and networks of a toy's size."""

from __future__ import annotations

import csv
import json
import re
import statistics

import pytest
import torch
import torchvision
from safetensors.torch import load_file

from core_tuning.cli import main
from core_tuning.data import build_transforms, load_splits

SMALL = ("--transforms", "small", "--image-size", 16, "--batch-size", 8, "--workers", 0)


@pytest.fixture
def data(tmp_path, write_folder):
    return write_folder(tmp_path / "data", {"train": 12, "val": 6, "test": 9})


@pytest.fixture
def finetune(tmp_path, data):
    """Run it on a folder of images for two epochs, into `run`."""

    def call(*options, method="core_tuning", epochs=2, output="run"):
        arguments = [
            "finetune", "--dataset", "folder", "--data-dir", data, "--pretrained", "embedded",
            *SMALL, "--epochs", epochs, "--method", method, "--output", tmp_path / output, *options,
        ]  # fmt: skip
        assert main([str(argument) for argument in arguments]) == 0
        return tmp_path / output

    return call


def read(path):
    return json.loads(path.read_text())


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("core-tuning: error: ")
    assert error.count("\n") == 1
    return error


def moco_v2(path):
    """Write a ResNet-18 in MoCo v2's format; the key encoder and the queue are to be left out."""
    torch.manual_seed(0)
    state = torchvision.models.resnet18(num_classes=8).state_dict()
    del state["fc.weight"], state["fc.bias"]
    head = {"fc.0.weight": torch.rand(512, 512), "fc.0.bias": torch.rand(512),
            "fc.2.weight": torch.rand(128, 512), "fc.2.bias": torch.rand(128)}  # fmt: skip
    both = {f"module.encoder_q.{name}": value for name, value in (state | head).items()}
    both |= {
        f"module.encoder_k.{name}": torch.zeros_like(value)
        for name, value in (state | head).items()
    }
    queue = {"module.queue": torch.rand(128, 16), "module.queue_ptr": torch.zeros(1)}
    torch.save({"epoch": 200, "arch": "resnet18", "state_dict": both | queue}, path)
    return path


@pytest.fixture
def resnet18_run(tmp_path, data):
    run = tmp_path / "run"
    code = main([
        "finetune", "--dataset", "folder", "--data-dir", str(data), "--encoder", "resnet18",
        "--pretrained", str(moco_v2(tmp_path / "moco.pth.tar")), "--image-size", "32",
        "--batch-size", "8", "--epochs", "2", "--workers", "0", "--output", str(run),
    ])  # fmt: skip
    assert code == 0
    return run


def test_a_moco_v2_resnet18_into_a_plain_torchvision_model(resnet18_run, data):
    """The figures in result.json are those of the exported file in torchvision's own model."""
    model = torchvision.models.resnet18(num_classes=2)
    model.load_state_dict(load_file(resnet18_run / "model.safetensors"), strict=True)
    model.eval()
    normalise = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    transform = build_transforms("imagenet", 32).evaluate
    test = load_splits("folder", data).test
    images = torch.stack([normalise(transform(test[index][0])) for index in range(len(test))])
    with torch.no_grad():
        predicted = model(images).argmax(dim=1)
    confusion = torch.zeros(2, 2, dtype=torch.int64)
    for true, guess in zip(test.labels, predicted.tolist(), strict=True):
        confusion[true, guess] += 1
    rows = list(csv.reader((resnet18_run / "confusion.csv").open()))
    assert rows[0][1:] == ["ant", "bee"]
    assert [[int(cell) for cell in row[1:]] for row in rows[1:]] == confusion.tolist()
    result = read(resnet18_run / "result.json")
    assert result["test"]["top1"] == pytest.approx(100 * confusion.trace().item() / 18)
    # And the encoder really came from the file: a few small steps have not moved it far.
    start = torch.load(resnet18_run.parent / "moco.pth.tar", weights_only=True)["state_dict"]
    weight = start["module.encoder_q.layer4.1.conv2.weight"]
    assert torch.nn.functional.cosine_similarity(
        model.layer4[1].conv2.weight.flatten(), weight.flatten(), dim=0
    ) > 0.99  # fmt: skip


def test_what_a_run_leaves_behind(finetune):
    run = finetune("--checkpoint-minutes", 0)
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoint.pt", "config.json", "confusion.csv", "figures", "metrics.jsonl",
        "model.safetensors", "result.json",
    ]  # fmt: skip
    assert (run / "figures" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    config = read(run / "config.json")["config"]
    assert (config["seed"], config["encoder"], config["eta"]) == (0, "small_resnet", 0.1)
    result = read(run / "result.json")
    assert result["steps"] == 2 * (24 // 8)
    assert result["test"]["images"] == 18
    assert result["validation"]["images"] == 12


@pytest.mark.parametrize("method", ["ce", "ce_con", "core_tuning"])
def test_options_that_matter_to_the_machine_alone(finetune, method):
    run = finetune(
        "--precision", "bf16", "--optimizer", "adam", "--lr", 0.001, "--no-channels-last",
        "--accumulate", 2, "--limit-steps", 4, "--schedule", "linear", method=method,
    )  # fmt: skip
    assert read(run / "result.json")["steps"] == 4


def test_the_released_variant(finetune):
    run = finetune("--variant", "released", epochs=1)
    assert read(run / "result.json")["variant"] == "released"


def test_the_test_set_is_read_once_at_the_end(finetune, monkeypatch):
    """No figure that selects anything may have seen it."""
    from core_tuning.data.images import ImageFiles

    order = []
    original = ImageFiles.image

    def counting(self, index):
        order.append(self.paths[index].split("/")[-3:])
        return original(self, index)

    monkeypatch.setattr(ImageFiles, "image", counting)
    finetune(epochs=3)
    splits = [split for split, *_ in order]
    assert splits.count("val") == 3 * 12
    assert splits[-18:] == ["test"] * 18
    assert "test" not in splits[:-18]
    assert len({tuple(parts) for parts in order[-18:]}) == 18


def test_two_seeds_are_summarised(finetune, tmp_path, capsys):
    output = finetune("--seeds", 0, 1, method="ce")
    results = [read(output / f"seed-{seed}" / "result.json") for seed in (0, 1)]
    assert [result["seed"] for result in results] == [0, 1]
    summary = read(output / "summary.json")
    assert summary["seeds"] == [0, 1]
    for name in ("top1", "mean_per_class"):
        values = [result["test"][name] for result in results]
        error = statistics.stdev(values) / 2**0.5
        assert summary[name]["values"] == values
        assert summary[name]["mean"] == pytest.approx(statistics.fmean(values))
        assert summary[name]["standard_error"] == pytest.approx(error)
        # Student's t with one degree of freedom.
        assert summary[name]["interval"] == pytest.approx(12.706 * error, rel=1e-3)
    # Each of them is the run that its seed makes alone.
    alone = finetune("--seeds", 1, method="ce", output="alone")
    assert read(alone / "result.json")["test"] == results[1]["test"]
    capsys.readouterr()
    assert main(["evaluate", str(output), "--workers", "0"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_tensorboard_files(finetune):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = finetune("--tensorboard", method="ce")
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for tag, figure in (("train/loss", "loss"), ("validation/top1", "top1")):
        scalars = events.Scalars(tag)
        split = tag.split("/")[0]
        assert [scalar.step for scalar in scalars] == [line["step"] for line in lines]
        assert [scalar.value for scalar in scalars] == pytest.approx(
            [line[split][figure] for line in lines]
        )


def test_evaluate_repeats_the_result(finetune, capsys, tmp_path):
    run = finetune()
    result = read(run / "result.json")["test"]
    before = files(run)
    for named in (run, run / "model.safetensors"):
        capsys.readouterr()
        assert main(["evaluate", str(named), "--workers", "0", "--batch-size", "5"]) == 0
        out = capsys.readouterr().out
        assert f"top-1 {result['top1']:.2f}%" in out
        assert f"mean per class {result['mean_per_class']:.2f}%" in out
    output = tmp_path / "evaluation"
    assert main(["evaluate", str(run), "--workers", "0", "--output", str(output)]) == 0
    assert read(output / "result.json")["evaluation"]["top1"] == result["top1"]
    assert (output / "confusion.csv").read_text() == (run / "confusion.csv").read_text()
    assert files(run) == before


def test_evaluate_on_the_split_that_selected(finetune, capsys):
    run = finetune()
    validation = read(run / "result.json")["validation"]["top1"]
    capsys.readouterr()
    assert main(["evaluate", str(run), "--workers", "0", "--split", "validation"]) == 0
    assert f"top-1 {validation:.2f}%" in capsys.readouterr().out


def test_bad_input_of_evaluate(finetune, data, tmp_path, write_folder, capsys):
    run = finetune(epochs=1)
    evaluate = ("evaluate", run, "--workers", 0)
    other = write_folder(tmp_path / "other", {"train": 2, "val": 2}, classes=("ant", "wasp"))
    error = refused(capsys, *evaluate, "--data-dir", other)
    assert "are not the model's" in error
    assert "is a file" in refused(capsys, *evaluate, "--data-dir", run / "config.json")
    assert "gone does not exist" in refused(capsys, *evaluate, "--data-dir", tmp_path / "gone")
    assert "'nothing'" in refused(capsys, *evaluate, "--dataset", "nothing")
    assert "is not empty" in refused(capsys, *evaluate, "--output", data)
    assert "--split" in refused(capsys, *evaluate, "--split", "all")


@pytest.mark.parametrize("option", [("--batch-size", 0), ("--batch-size", -1), ("--workers", -1)])
def test_evaluate_with_numbers_out_of_range(finetune, capsys, option):
    run = finetune(epochs=1)
    assert option[0] in refused(capsys, "evaluate", run, "--workers", 0, *option)


@pytest.mark.parametrize("contents", [b"To whom it may concern", b""])
def test_evaluate_of_a_file_that_is_no_model(tmp_path, capsys, contents):
    (tmp_path / "model.safetensors").write_bytes(contents)
    assert "model.safetensors" in refused(capsys, "evaluate", tmp_path)


def test_resume_of_a_finished_run_does_nothing(finetune, monkeypatch):
    run = finetune("--checkpoint-minutes", 5)
    before = files(run)
    monkeypatch.setattr("core_tuning.classification.run._build", None)
    finetune("--checkpoint-minutes", 5, "--resume")
    after = files(run)
    del before[run / "config.json"], after[run / "config.json"]
    assert after == before


def test_resume_of_another_configuration(finetune, capsys, tmp_path, data):
    run = finetune(epochs=1)
    before = files(run)
    base = ("finetune", "--dataset", "folder", "--data-dir", data, "--pretrained", "embedded",
            *SMALL, "--epochs", 1, "--output", run, "--resume")  # fmt: skip
    for options, named in [
        (("--lr", 0.5), "lr = 0.01, not 0.5"),
        (("--eta", 0), "eta = 0.1, not 0.0"),
        (("--method", "ce"), "method = 'core_tuning', not 'ce'"),
        (("--seeds", 3), "seed = 0, not 3"),
        (("--epochs", 2), "epochs = 1, not 2"),
        (("--pretrained", "random", "--encoder", "small_resnet"), "pretrained = 'embedded'"),
        (("--precision", "bf16"), "precision = 'fp32', not 'bf16'"),
        (("--validation", 0.2), "validation = 0.1, not 0.2"),
    ]:
        assert named in refused(capsys, *base, *options)
    assert files(run) == before


def test_harmless_options_may_differ_on_resume(finetune, monkeypatch, tmp_path):
    whole = finetune(output="whole")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(AssertionError):
        # Ctrl-C after the first epoch, which main reports by another exit code.
        patch.setattr("core_tuning.training.loop._Run._export", stop)
        finetune()
    run = finetune("--resume", "--workers", 1, "--checkpoint-minutes", 3, "--tensorboard")
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, run))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert read(run / "config.json")["config"]["workers"] == 1
    assert (run / "tensorboard").is_dir()


def test_resume_goes_on_with_the_missing_seeds(finetune, monkeypatch):
    output = finetune("--seeds", 0, 1, method="ce")
    before = read(output / "summary.json")
    (output / "seed-1" / "result.json").unlink()
    (output / "summary.json").unlink()
    finetune("--seeds", 0, 1, "--resume", method="ce")
    assert read(output / "summary.json") == before


def test_overwrite_begins_anew(finetune):
    run = finetune("--seeds", 0, method="ce")
    first = read(run / "result.json")
    finetune("--overwrite", epochs=1)
    second = read(run / "result.json")
    assert (first["method"], second["method"]) == ("ce", "core_tuning")
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1


def test_more_seeds_into_a_single_run(finetune, data, capsys):
    run = finetune(epochs=1)
    error = refused(
        capsys, "finetune", "--dataset", "folder", "--data-dir", data, "--pretrained", "embedded",
        *SMALL, "--output", run, "--seeds", 0, 1, "--resume",
    )  # fmt: skip
    assert re.search("holds a single run, not what --seeds 0 1 makes", error)
