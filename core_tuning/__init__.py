"""Core-tuning: contrast-regularised fine-tuning of self-supervised visual models."""

from pathlib import Path

__version__ = "0.1.0"

# In a checkout the subpackages (`algorithms`, `sweeps`, ...) lie beside this folder, and must come
# from the same checkout where another one is installed as editable.
_root = Path(__file__).resolve().parent.parent
if (_root / "setup.cfg").is_file():
    __path__.append(str(_root))
