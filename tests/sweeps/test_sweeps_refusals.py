"""A mistake in a definition or on the command line is one sentence, and the nearest name."""

from __future__ import annotations

import pytest

RUN = ("sweep", "run")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["table2"], "no sweep 'table2': did you mean 'table02'?"),
        (["zzz"], "no sweep 'zzz': expected one of emoji, "),
        (["gone/mine.toml"], "The file gone/mine.toml does not exist"),
        (["table02", "--only", "datset=dtd"], "axis 'datset': did you mean 'dataset'?"),
        (["table02", "--only", "dataset=dtt"], "dataset has no value 'dtt': did you mean 'dtd'?"),
        (["table02", "--only", "dataset"], "--only is 'dataset': expected KEY=VALUE"),
        (["emoji", "--only", "target=mono", "budget=l2 0.5"], "--only leaves no run of emoji"),
        (["table02", "--set", "pretained=x"], "'pretained': did you mean 'pretrained'?"),
        (["table02", "--set", "pretrained"], "--set is 'pretrained': expected KEY=VALUE"),
        (["table02", "--set", "lr=1", "lr=2"], "--set gives 'lr' twice"),
        (["table02", "--set", "dataset=dtd"], "the axis 'dataset' decides about"),
        (["table02", "--set", "output=x"], "no run takes, 'output'"),
        (["table02", "--set", "hparams.lr=1"], "no run takes, 'hparams.lr'"),
        (["table02", "--set", "evaluate.n=1"], "no run takes, 'evaluate.n'"),
        (["table02", "--set", "epochs=many"], "epochs is 'many': expected a number"),
        (["table09", "--set", "evaluate.n=few"], "n is 'few': expected a number"),
        (["table08", "--set", "hparams.batch_size=x"], "batch_size is 'x': expected a number"),
        (["table08", "--set", "hparams=1"], "give one, as in --set hparams.lr=0.001"),
        (["table02", "--seeds", "-1"], "--seeds is -1: expected at least 0"),
        (["table02", "--seeds", "1", "1"], "--seeds: seeds is [1, 1]"),
        (["table02", "--small"], "table02 has no small setting"),
        (["table02", "--tflops", "0"], "--tflops is 0.0: expected above 0"),
        (["table02", "--price", "-2"], "--price is -2.0: expected at least 0"),
        (["table02", "--workers", "0"], "--workers is 0: expected at least 1"),
        (["table02", "--launcher", "pbs"], "invalid choice: 'pbs'"),
        (["table02", "--slurm", "gpu"], "--slurm is 'gpu': expected KEY=VALUE"),
        (["table09", "--set", "evaluate.attacks=pgd11"], "--attacks: invalid choice: 'pgd11'"),
    ],
)
def test_command_lines(refused, arguments, expected):
    assert expected in refused(*RUN, *arguments, "--dry-run")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("seed = [1]\n", "mine.toml has an unknown key 'seed': did you mean 'seeds'?"),
        ("[options]\nepoch = 3\n", "unknown option 'epoch': did you mean 'epochs'?"),
        ("[options]\nseeds = 3\n", "options has an unknown option 'seeds'"),
        ("[axes]\ndatset = ['dtd']\n", "not an option, 'datset': did you mean 'dataset'?"),
        ("[axes]\ndataset = 'dtd'\n", "dataset is 'dtd': expected a list"),
        ("[axes]\ndataset = []\n", "dataset is []: expected a list"),
        ("[axes]\ndataset = ['dtd', 'dtd']\n", "the name 'dtd' stands there twice"),
        ("[axes]\nx = [{ name = 'y', option = {} }]\n", "'option': did you mean 'options'?"),
        ("[axes]\nx = [{ options = {} }]\n", "'name' is missing, expected a text"),
        ("[axes]\nx = [{ name = 'a' }, { name = 'b' }]\n", "are the same run"),
        ("[axes]\nlr = [1]\n[grid]\nlr = [2]\n", "the name 'lr' stands there twice"),
        ("evaluate = { n = 3 }\n", "'evaluate' with the command finetune"),
        ("[small]\nepochs = 3\n", "small has an unknown key 'epochs'"),
        ("[small]\nseeds = [1.5]\n", "seeds is [1.5]"),
        ("[small.only]\nrow = ['CF']\n", "row has no value 'CF': did you mean 'CE'?"),
        ("[paper]\ntable = 'table2.csv'\nvalue = 'top1'\n", "the paper has no table 'table2.csv'"),
        ("[paper]\ntable = 'table06_inat18.csv'\nvalue = 'top2'\n", "did you mean 'top1'?"),
        ("[paper]\ntable = 'table06_inat18.csv'\nvalue = 'top1'\n", "has 3 rows with "),
        ("[paper]\ntable = 'table06_inat18.csv'\n", "value is None: expected a column"),
        ("machine = { unit = 'core', tflops = '1' }\n", "tflops is '1': expected a number above"),
        ("machine = { tflop = 1 }\n", "unknown key 'tflop': did you mean 'tflops'?"),
        ("seeds = [0]\n", "is not valid TOML"),
    ],
)
def test_definitions(define, refused, more, expected):
    error = refused(*RUN, define(more), "--dry-run")
    assert expected in error
    assert "mine" in error


def test_a_number_that_is_none(define, refused):
    error = refused(*RUN, define("options = { epochs = 'many' }\n"), "--dry-run")
    assert "epochs is 'many': expected a number." in error


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("command = 'finetune'\n", "'title' is missing, expected a text"),
        ("title = 't'\n", "'command' is missing, expected a text"),
        ("title = 't'\ncommand = 'finetun'\n", "command 'finetun': did you mean 'finetune'?"),
        ("title = 3\ncommand = 'dg'\n", "'title' is 3, expected a text"),
        ("title = 't'\ncommand = 'dg'\nseeds = [0, 0]\n", "seeds is [0, 0]"),
        ("title = 't'\ncommand = 'dg'\noptions = { hparams = 'x' }\n", "'hparams' is 'x'"),
        ("title = 't'\ncommand = 'robust'\nmeasures = [{ norm = 'l3', eps = '1' }]\n",
         "norm 'l3': did you mean 'l2'?"),
        ("title = 't'\ncommand = 'robust'\n", "neither norm and eps nor measures"),
        ("title = 't'\n[[part]]\nname = 'a'\ncomand = 'dg'\n", "did you mean 'command'?"),
        ("title = 't'\ncommand = 'dg'\n[[part]]\nname = 'a'\n", "unknown key 'command'"),
        ("title = 't'\n" + 2 * "[[part]]\nname = 'a'\ncommand = 'dg'\n", "the name 'a' stands"),
    ],
)  # fmt: skip
def test_whole_files(define, refused, text, expected):
    assert expected in refused(*RUN, define(text=text), "--dry-run")


def test_a_binary_file(tmp_path, refused):
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe")
    assert "cannot be read (not UTF-8)" in refused(*RUN, tmp_path / "mine.toml", "--dry-run")
