"""Registration with a package that has DomainBed's interface and nothing behind it."""

from __future__ import annotations

import importlib
import json
import sys

import pytest

from core_tuning.algorithms import CECon, CETuning, CoreTuning, hook, register
from core_tuning.algorithms.emoji_dataset import EMOJI_ENVIRONMENTS
from core_tuning.algorithms.names import ALGORITHMS
from core_tuning.data.embedded import emoji_domains_folder
from core_tuning.errors import UserError


def module(name):
    return importlib.import_module(f"domainbed.{name}")


def test_names_are_there_once_however_often_registered(fake_domainbed):
    register()
    first = module("datasets").EmojiDomains
    wrapped = module("hparams_registry")._hparams
    register()
    algorithms = module("algorithms")
    assert ["ERM", *ALGORITHMS] == algorithms.ALGORITHMS
    assert [algorithms.CoreTuning, algorithms.CECon, algorithms.CETuning] == [
        CoreTuning, CECon, CETuning,
    ]  # fmt: skip
    assert module("datasets").DATASETS == ["Debug28", "EmojiDomains"]
    assert module("datasets").EmojiDomains is first
    assert module("hparams_registry")._hparams is wrapped


@pytest.mark.parametrize(
    ("file", "line", "name"),
    [
        ("algorithms.py", "class CECon: pass\n", "CECon"),
        ("datasets.py", "class EmojiDomains: pass\n", "EmojiDomains"),
    ],
)
def test_a_name_that_is_taken_is_refused(fake_domainbed, file, line, name):
    with (fake_domainbed / "domainbed" / file).open("a") as opened:
        opened.write(line)
    with pytest.raises(UserError, match=f"has a '{name}' of its own"):
        register()


def test_a_copy_without_what_is_wrapped_is_refused(fake_domainbed):
    (fake_domainbed / "domainbed" / "networks.py").write_text("")
    with pytest.raises(UserError, match=r"networks has no function 'Featurizer' of.*b93c22a"):
        register()


def test_no_domainbed_and_no_dependency_are_told_apart(fake_domainbed, monkeypatch):
    networks = fake_domainbed / "domainbed" / "networks.py"
    networks.write_text("import a_package_nobody_has\n")
    with pytest.raises(UserError, match=r"imports 'a_package_nobody_has'.*core-tuning\[domainbed"):
        register()
    networks.unlink()
    with pytest.raises(UserError, match=r"finds no module domainbed.networks"):
        register()


def test_hparams_of_ours_are_plain_and_of_both_kinds(fake_domainbed):
    register()
    registry = module("hparams_registry")
    for algorithm in ("CoreTuning", "CECon", "CETuning"):
        default = registry.default_hparams(algorithm, "PACS")
        drawn = registry.random_hparams(algorithm, "PACS", 3)
        assert default.keys() == drawn.keys()
        assert json.loads(json.dumps(drawn)) == drawn
        assert default["lr"] == 5e-5 != drawn["lr"]


def test_other_algorithms_keep_theirs_and_take_small_images_for_emoji(fake_domainbed):
    register()
    registry = module("hparams_registry")
    assert registry.default_hparams("ERM", "PACS")["dataset"] == "PACS"
    assert registry.default_hparams("ERM", "EmojiDomains") == {
        "dataset": "RotatedMNIST", "batch_size": 64,
    }  # fmt: skip


def test_random_batches_fit_the_domains_of_emoji(fake_domainbed):
    """DomainBed draws up to 512 for small images; the domain mono trains on 488."""
    register()
    draw = module("hparams_registry").random_hparams
    drawn = [draw("ERM", name, seed)["batch_size"]
             for name in ("PACS", "EmojiDomains") for seed in (100, 511)]  # fmt: skip
    assert drawn == [100, 511, 100, 256]


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        (["--steps", "7"], 7),
        (["--steps=7"], 7),
        (["--st", "7"], 7),
        (["--steps", "7", "--steps=9", "--algorithm", "ERM"], 9),
        (["--steps", "0"], 5001),
        ([], 5001),
    ],
)
def test_steps_of_train_reach_the_schedule(fake_domainbed, monkeypatch, arguments, steps):
    script = fake_domainbed / "domainbed" / "scripts" / "train.py"
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    register()
    hparams = module("hparams_registry").default_hparams("CoreTuning", "Debug28")
    assert hparams["total_steps"] == steps


@pytest.mark.parametrize(
    ("declared", "arguments", "steps"),
    [
        ('add_argument("name")\nadd_argument(\n    "-s", "--steps", type=int)',
         ["run", "--steps", "7"], 7),
        ('add_argument("--steps")\nadd_argument("--seed")', ["--st=7", "--seed", "1"], 7),
        ('add_argument("--steps")\nadd_argument("--stop")', ["--st", "7"], 5001),
        ("from parsers import parser", ["--steps", "7", "--step", "8", "--steps=9"], 9),
        ("from parsers import parser", ["--step", "7", "--", "--steps", "8"], 5001),
        ("", ["--steps"], 5001),
        ("", ["--steps", "many"], 5001),
        ("", ["--steps", "-5"], 5001),
    ],
)  # fmt: skip
def test_steps_of_any_script_count(
    fake_domainbed, monkeypatch, tmp_path, declared, arguments, steps
):
    script = tmp_path / "train_all.py"
    script.write_text(declared)
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    register()
    for draw in ("default_hparams", "random_hparams"):
        seed = [3] if draw == "random_hparams" else []
        hparams = getattr(module("hparams_registry"), draw)("CoreTuning", "Debug28", *seed)
        assert hparams["total_steps"] == steps


@pytest.mark.parametrize("argv", [[], ["-c"], ["gone/ipykernel_launcher.py", "-f", "kernel.json"]])
def test_without_steps_the_data_sets_count(fake_domainbed, monkeypatch, argv):
    monkeypatch.setattr(sys, "argv", argv)
    register()
    registry = module("hparams_registry")
    assert registry.default_hparams("CECon", "Long")["total_steps"] == 15001
    assert registry.default_hparams("CECon", "Debug28")["total_steps"] == 5001
    assert registry.default_hparams("CECon", "Unheard")["total_steps"] == 5001


def test_the_data_sets_steps_count_under_the_hook_before_it_is_imported(fake_domainbed):
    hook.install()
    assert module("hparams_registry").default_hparams("CECon", "Long")["total_steps"] == 15001


@pytest.mark.parametrize(
    ("arguments", "given", "steps"),
    [
        (["--steps", "7", "--dataset", "Long"], {}, 7),
        (["--dataset", "Long"], {}, 15001),
        (["--steps", "7"], {"total_steps": 3}, 3),
        ([], {}, 5001),
    ],
)
def test_an_algorithm_built_without_the_registry_finds_the_steps(
    fake_domainbed, monkeypatch, arguments, given, steps
):
    module("datasets")
    monkeypatch.setattr(sys, "argv", ["train_all.py", *arguments])
    algorithm = CETuning((3, 32, 32), 2, 3, {"checkpoint": "embedded", **given})
    assert algorithm.hparams["total_steps"] == steps


def test_featurizer_starts_from_a_checkpoint_only_where_one_is_named(fake_domainbed):
    register()
    featurizer = module("networks").Featurizer
    hparams = {"resnet_dropout": 0.0, "freeze_bn": True}
    assert featurizer((3, 32, 32), {**hparams, "checkpoint": ""}) == "stock"
    ours = featurizer((3, 32, 32), {**hparams, "checkpoint": "embedded"})
    assert ours.n_outputs == 128
    assert ours.train() is ours
    with pytest.raises(UserError, match="3 channels, and these have 2"):
        featurizer((2, 32, 32), {**hparams, "checkpoint": "embedded"})


def test_a_domain_smaller_than_a_batch_is_refused(fake_domainbed):
    register()
    loader = module("lib.fast_data_loader").InfiniteDataLoader

    class Domain(list):
        root = "data/PACS/sketch"

    class Split(list):
        underlying_dataset = Domain()

    with pytest.raises(UserError, match=r"domain sketch has 3 images .* batch_size of 4"):
        loader(Split(range(3)), None, 4, 0)
    with pytest.raises(UserError, match="A domain has 3 images"):
        loader([1, 2, 3], None, 4, 0)
    assert loader([1, 2, 3], None, 3, 0).batch_size == 3
    # Class-balanced sampling draws a batch out of any number.
    assert loader([1, 2, 3], [1.0] * 3, 4, 0).batch_size == 4


def test_emoji_domains_has_the_folders_domains(fake_domainbed):
    register()
    folders = sorted(path.name for path in emoji_domains_folder().iterdir())
    assert list(EMOJI_ENVIRONMENTS) == folders
    emoji = module("datasets").EmojiDomains(None, [2], {"data_augmentation": True})
    assert (
        emoji.ENVIRONMENTS == folders == [domain.root.split("/")[-1] for domain in emoji.datasets]
    )
    assert emoji.num_classes == 10
    image, label = emoji.datasets[2][0]
    assert image.shape == emoji.input_shape == (3, 32, 32)
    assert label == 0
    assert [_is_random(domain) for domain in emoji.datasets] == [True, True, False, True]
    plain = module("datasets").EmojiDomains(None, [], {"data_augmentation": False})
    assert not any(_is_random(domain) for domain in plain.datasets)


def _is_random(domain):
    return len({tuple(domain[0][0].flatten().tolist()) for _ in range(5)}) > 1
