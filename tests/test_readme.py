"""The README's lines are run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image

from core_tuning.commands import COMMANDS
from core_tuning.encoders import SmallResNet

README = Path(__file__).parents[1] / "README.md"
TEXTS = [README, README.parent / "docs" / "finetune.md"]
SNIPPETS = [
    found
    for path in TEXTS
    for found in re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL)
]


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


def test_the_snippet_that_fine_tunes_and_loads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = snippet("load_model").replace("epochs=2", "limit_steps=1, workers=0")
    image = Image.new("RGB", (48, 48), (200, 30, 60))
    namespace = {"image": image}
    exec(code, namespace)
    assert namespace["result"].folder == Path("runs/emoji_domains-core_tuning")
    assert namespace["logits"].shape == (1, 10)


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 150


def test_every_command_is_in_the_table():
    listed = re.findall(r"^\| `core-tuning (\w+)", README.read_text(), flags=re.MULTILINE)
    assert set(listed) == {name.split()[0] for name in COMMANDS}


def test_links_lead_somewhere():
    for path in [README, *README.parent.glob("docs/*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), (path, target)
