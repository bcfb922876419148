"""The README's lines are run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch

from core_tuning.config import COMMANDS
from core_tuning.encoders import SmallResNet

README = Path(__file__).parents[1] / "README.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


def snippet(marker: str) -> str:
    (found,) = [text for text in SNIPPETS if marker in text]
    return found


@pytest.fixture
def loader():
    generator = torch.Generator().manual_seed(0)
    return [(torch.rand(8, 3, 32, 32, generator=generator), torch.arange(8) % 4) for _ in range(2)]


def test_plain_torch_snippet_trains(loader):
    encoder = SmallResNet()
    before = [parameter.clone() for parameter in encoder.parameters()]
    # The snippet's 2048 features are ResNet-50's, which a test need not build.
    code = snippet("torch.optim").replace("2048", "128")
    namespace = {"encoder": encoder, "loader": loader}
    exec(code, namespace)
    assert any(
        not torch.equal(old, new) for old, new in zip(before, encoder.parameters(), strict=True)
    )
    assert torch.isfinite(namespace["terms"].total)


def test_timm_snippet_trains(loader, monkeypatch):
    create_model = timm.create_model

    def without_download(name, pretrained=False, **kwargs):
        return create_model("resnet10t", pretrained=False, **kwargs)

    monkeypatch.setattr(timm, "create_model", without_download)
    namespace = {"loader": loader}
    exec(snippet("timm.create_model"), namespace)
    assert torch.isfinite(namespace["terms"].total)
    assert namespace["terms"].logits.shape == (8, 10)


def test_there_are_no_other_snippets_than_those_run():
    assert len(SNIPPETS) == 3


def test_load_snippet(tmp_path, monkeypatch):
    import core_tuning.training.exported as exported
    from core_tuning.encoders import ImageEncoder
    from core_tuning.objectives import CrossEntropyLoss
    from core_tuning.training.learner import Learner

    learner = Learner(ImageEncoder(SmallResNet()), torch.nn.Linear(128, 4, bias=False),
                      CrossEntropyLoss())  # fmt: skip
    facts = {"encoder": "small_resnet", "classes": list("abcd"), "mean": [0, 0, 0],
             "std": [1, 1, 1], "image_size": 48, "transforms": "cifar", "dataset": "cifar10",
             "seed": 0}  # fmt: skip
    run = tmp_path / "runs" / "cifar10-core_tuning" / "seed-0"
    run.mkdir(parents=True)
    (run / "model.safetensors").write_bytes(learner.export(facts))
    monkeypatch.chdir(tmp_path)
    namespace = {"images": torch.rand(2, 3, 48, 48)}
    exec(snippet("load_model"), namespace)
    assert exported.load_model is namespace["load_model"]
    assert namespace["logits"].shape == (2, 4)


def test_every_command_is_in_the_table():
    listed = re.findall(r"^\| `core-tuning (\w+)", README.read_text(), flags=re.MULTILINE)
    assert set(listed) == {name.split()[0] for name in COMMANDS}


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README.read_text()):
        assert (README.parent / target).exists(), target
