"""Regraft carries what a model already knows to a task it has never seen, and says honestly whether that helped.

>>> run = regraft.fit("photos/", budget="5m")
>>> run.verdict
>>> model = regraft.load(run)
>>> model.predict(["a.jpg"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regraft.api import Run, adapt, fit, generalise, load
    from regraft.deploy.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["Predictor", "Run", "__version__", "adapt", "fit", "generalise", "load"]

_WHERE = {
    "adapt": "api",
    "fit": "api",
    "generalise": "api",
    "load": "api",
    "Run": "api",
    "Predictor": "deploy.predictor",
}


def __getattr__(name: str) -> Any:
    # Loaded when first used: `import regraft` alone costs no PyTorch.
    if name in _WHERE:
        from importlib import import_module

        return getattr(import_module(f"regraft.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'regraft' has no attribute {name!r}")
