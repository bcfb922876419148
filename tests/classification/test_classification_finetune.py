"""`core-tuning finetune`, end to end on data and networks of a toy's size."""

from __future__ import annotations

import csv
import json
import statistics

import pytest
import torch
import torchvision
from safetensors.torch import load_file

from core_tuning.cli import main
from core_tuning.data import build_transforms, load_splits
from core_tuning.errors import UserError


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


def test_a_moco_v2_resnet18_into_a_plain_torchvision_model(kit, resnet18_run, data):
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
    result = kit.read(resnet18_run / "result.json")
    assert result["test"]["top1"] == pytest.approx(100 * confusion.trace().item() / 18)
    # And the encoder really came from the file: a few small steps have not moved it far.
    start = torch.load(resnet18_run.parent / "moco.pth.tar", weights_only=True)["state_dict"]
    weight = start["module.encoder_q.layer4.1.conv2.weight"]
    assert torch.nn.functional.cosine_similarity(
        model.layer4[1].conv2.weight.flatten(), weight.flatten(), dim=0
    ) > 0.99  # fmt: skip


def test_what_a_run_leaves_behind(kit, finetune):
    run = finetune("--checkpoint-minutes", 0)
    assert sorted(path.name for path in run.iterdir()) == [
        ".lock", "checkpoint.pt", "classes.csv", "confusion.csv", "figures", "last.safetensors",
        "metrics.jsonl", "model.safetensors", "report.html", "result.json", "run.json",
    ]  # fmt: skip
    assert (run / "figures" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    stored = kit.read(run / "run.json")
    assert (stored["command"], stored["seed"], stored["format_version"]) == ("finetune", 0, 1)
    assert (stored["options"]["encoder"], stored["options"]["eta"]) == ("small_resnet", 0.1)
    assert "120 tensors" in stored["initial"]["loaded"]
    result = kit.read(run / "result.json")
    assert result["steps"] == 2 * (24 // 8)
    assert result["test"]["images"] == 18
    assert result["validation"]["images"] == 12


@pytest.mark.parametrize("method", ["ce", "ce_con", "core_tuning"])
def test_options_that_matter_to_the_machine_alone(kit, finetune, method):
    run = finetune(
        "--precision", "bf16", "--optimizer", "adam", "--lr", 0.001, "--no-channels-last",
        "--accumulate", 2, "--limit-steps", 4, "--schedule", "linear", method=method,
    )  # fmt: skip
    assert kit.read(run / "result.json")["steps"] == 4


def test_what_the_release_computes(kit, finetune):
    run = finetune(method="released", epochs=1)
    assert kit.read(run / "result.json")["method"] == "released"


def test_options_that_once_only_dg_had(kit, finetune):
    run = finetune("--dropout", 0.5, "--freeze-bn", "--steps", 3, "--eval-every", 2, epochs=None)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 3]


def test_a_limit_of_steps_limits_validation_and_test(kit, finetune):
    result = kit.read(finetune("--limit-steps", 1) / "result.json")
    assert (result["validation"]["images"], result["test"]["images"]) == (8, 8)


@pytest.mark.parametrize("memory", [0, 1])
def test_images_kept_in_memory_change_nothing(kit, finetune, memory):
    run = finetune("--memory", memory, output=f"run-{memory}")
    assert kit.read(run / "result.json")["test"] == kit.read(finetune() / "result.json")["test"]


def test_the_python_interface(kit, finetune, data, tmp_path):
    from PIL import Image

    import core_tuning

    options = {
        "dataset": "folder", "data_dir": str(data), "pretrained": "embedded", "image_size": 16,
        "transforms": "small", "batch_size": 8, "workers": 0, "epochs": 2,
    }  # fmt: skip
    result = core_tuning.finetune(**options, output=tmp_path / "python")
    assert result.metrics == kit.read(finetune() / "result.json")["test"]
    model, facts = core_tuning.load_model(result.folder)
    image = Image.open(data / "test" / "ant" / "0000.png").convert("RGB")
    logits = model(facts.transform(image)[None])
    assert logits.shape == (1, len(facts["classes"]))
    assert torch.equal(logits, result.model(facts.transform(image)[None]))
    with pytest.raises(UserError, match="did you mean 'epochs'"):
        core_tuning.finetune(**options, epoch=2)
    with pytest.raises(UserError, match="call finetune once for each of them"):
        core_tuning.finetune(**options, seeds=[0, 1])


def test_the_test_set_is_read_once_at_the_end(finetune, monkeypatch):
    """No figure that selects anything may have seen it."""
    from core_tuning.data.images import ImageFiles

    order = []
    original = ImageFiles.image

    def counting(self, index):
        order.append(self.paths[index].split("/")[-3:])
        return original(self, index)

    monkeypatch.setattr(ImageFiles, "image", counting)
    finetune("--memory", 0, epochs=3)
    splits = [split for split, *_ in order]
    assert splits.count("val") == 3 * 12
    # What comes after the 18 are the worst ones, for the report.
    first = splits.index("test")
    assert set(splits[first:]) == {"test"}
    assert len({tuple(parts) for parts in order[first : first + 18]}) == 18


def test_two_seeds_are_summarised(kit, finetune, tmp_path, capsys):
    output = finetune("--seeds", 0, 1, method="ce")
    results = [kit.read(output / f"seed-{seed}" / "result.json") for seed in (0, 1)]
    assert [result["seed"] for result in results] == [0, 1]
    summary = kit.read(output / "summary.json")
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
    assert kit.read(alone / "result.json")["test"] == results[1]["test"]
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
