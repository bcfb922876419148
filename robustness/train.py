"""`core-tuning robust train`: adversarial fine-tuning (Section 5.3, Tables 9 and 14)."""

from __future__ import annotations

from core_tuning.config import check_places

from .config import RobustTrain


def main(options: RobustTrain) -> None:
    """Run the command; torch is imported after the options are checked."""
    check_places(options.data_dir, options.pretrained, download=options.download)
    from core_tuning.training.classify import run_classification

    from .adversary import adversarial
    from .attack.pgd import check_torchattacks

    check_torchattacks()
    kind = adversarial(options)
    budget, eps = options.budget(), kind.facts["adversarial"]["eps_text"]
    print(
        f"attack: {budget.norm} norm, eps {eps} on images in [0, 1]; {budget.steps} steps of PGD "
        f"of size {budget.step_size:.3g} from a random start"
    )
    run_classification(options, kind)
