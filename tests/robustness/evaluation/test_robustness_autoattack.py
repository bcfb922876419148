"""AutoAttack's attacks one by one equal its authors' own run, and leave no trace."""

from __future__ import annotations

import logging
import random
import sys

import numpy as np
import pytest
import torch
from pyautoattack import AutoAttack

from core_tuning.errors import UserError
from core_tuning.robustness import measure
from core_tuning.robustness.attack import autoattack
from core_tuning.robustness.attack.autoattack import (
    check_pyautoattack,
    collect_warnings,
    run_attack,
)
from core_tuning.robustness.attack.view import AttackView
from core_tuning.robustness.pixels import group
from core_tuning.robustness.protocols import PROTOCOLS, choose_protocol

EPS = {"l2": 0.4, "linf": 0.02}


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_parity_with_the_authors_own_run(tiny, kit, quick_auto_attack, monkeypatch, norm):
    images, labels = kit.coloured(20, 4)
    with torch.random.fork_rng():
        official = AutoAttack(
            tiny.view, norm={"l2": "L2", "linf": "Linf"}[norm], eps=EPS[norm], seed=3
        )
        official.apgd_targeted.n_target_classes = official.fab.n_target_classes = 3
        official.square.n_queries = 40
        attacked, _ = official.run_standard_evaluation(images, labels, batch_size=6)
    expected = tiny.model(attacked).argmax(dim=1) == labels
    # The official run takes the same seed for every batch of every attack.
    monkeypatch.setattr(measure, "derive_seed", lambda *parts: 3)
    for stage in PROTOCOLS["autoattack"].stages:
        monkeypatch.setitem(stage.attack.keywords, "queries", 40)
    found = measure.measure(
        tiny.model, tiny.view, [group(images, labels)], PROTOCOLS["autoattack"], norm, EPS[norm],
        seed=0, batch_size=6,
    )  # fmt: skip
    assert torch.equal(found.robust, expected)
    assert 0 < int(expected.sum()) < len(labels)


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_few_classes_can_be_attacked(kit, quick_auto_attack, classes):
    model = kit.trained(classes)
    images, labels = kit.coloured(6, classes)
    protocol = choose_protocol("autoattack", classes)
    for stage in protocol.stages:
        stage.attack.keywords["queries"] = 5
    found = measure.measure(
        model,
        AttackView(model),
        [group(images, labels)],
        protocol,
        "linf",
        0.3,
        seed=0,
        batch_size=6,
    )
    assert not found.robust.any()


@pytest.mark.parametrize(("classes", "targets"), [(2, 1), (4, 3), (10, 9), (100, 9)])
def test_settings_are_the_standard_versions(kit, monkeypatch, classes, targets):
    seen = []

    def record(self, images, labels, **options):
        limits = self.apgd_targeted.n_target_classes, self.fab.n_target_classes
        seen.append((*limits, self.apgd.n_restarts, self.apgd.n_iter, self.square.n_queries))
        return images, labels

    monkeypatch.setattr(AutoAttack, "run_standard_evaluation", record)
    with torch.random.fork_rng():
        model = kit.Tiny(classes).eval()
    run_attack("apgd-t", model, *kit.coloured(2, 2), "linf", 0.1, 0)
    assert seen == [(targets, targets, 1, 100, 5000)]


def test_the_global_random_state_is_left_alone(tiny, kit):
    images, labels = kit.coloured(4, 4)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = run_attack("square", tiny.view, images, labels, "linf", 0.02, 5, queries=5)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all() and random.getstate() == before[2]
    torch.rand(3)
    again = run_attack("square", tiny.view, images, labels, "linf", 0.02, 5, queries=5)
    assert torch.equal(first, again)


def test_a_trace_function_survives(tiny, kit):
    def trace(frame, event, argument):
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run_attack("square", tiny.view, *kit.coloured(2, 4), "linf", 0.02, 0, queries=1)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)


def test_warnings_are_collected_once_and_not_printed(capsys):
    logger = logging.getLogger("auto-attack")
    with collect_warnings() as found:
        logger.warning("it seems odd! See flags_doc.md for details.")
        logger.warning("it seems odd! See flags_doc.md for details.")
        logger.info("nothing")
    assert found == ["it seems odd!"]
    assert capsys.readouterr().err == ""
    assert logger.handlers == [] and logger.propagate


def test_nothing_is_printed(tiny, kit, capfd):
    run_attack("apgd-ce", tiny.view, *kit.coloured(2, 4), "l2", 0.1, 0)
    assert capfd.readouterr() == ("", "")


def test_missing_pyautoattack_names_the_extra(monkeypatch):
    monkeypatch.setattr(autoattack.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'core-tuning\[robustness\]'"):
        check_pyautoattack()
