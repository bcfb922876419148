"""Core-tuning: contrast-regularised fine-tuning of self-supervised visual models.

    from core_tuning import finetune, load_model

    result = finetune(dataset="emoji_domains", method="core_tuning", epochs=2)
    model, facts = load_model(result.folder)
    logits = model(facts.transform(image)[None])  # (1, K)

Nothing heavy is imported before a name is used.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from .lazy import lazy_names

if TYPE_CHECKING:
    from .classification.finetune import finetune
    from .objectives import CEContrastiveLoss, CoreTuningLoss, CrossEntropyLoss
    from .released import ReleasedCoreTuningLoss
    from .training.exported import load_model

__version__ = "0.1.0"

# In a checkout the subpackages (`algorithms`, `sweeps`, ...) lie beside this folder, and must come
# from the same checkout where another one is installed as editable.
_root = Path(__file__).resolve().parent.parent
if (_root / "setup.cfg").is_file():
    __path__.append(str(_root))

__getattr__ = lazy_names(
    __name__,
    {
        "CEContrastiveLoss": "objectives",
        "CoreTuningLoss": "objectives",
        "CrossEntropyLoss": "objectives",
        "ReleasedCoreTuningLoss": "released",
        "finetune": "classification.finetune",
        "load_model": "training.exported",
    },
)
__all__ = [
    "CEContrastiveLoss",
    "CoreTuningLoss",
    "CrossEntropyLoss",
    "ReleasedCoreTuningLoss",
    "finetune",
    "load_model",
]
