"""`lightning_fabric` without what it need not import.

To learn the version of torchmetrics it imports all of it, where it is installed: two seconds at every start, for
parts of Fabric that nothing here uses.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

_MODULES: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
_hidden = "torchmetrics" not in _MODULES
if _hidden:
    _MODULES["torchmetrics"] = None  # an import of it fails as if it were not installed
try:
    from lightning_fabric import Fabric, seed_everything
    from lightning_fabric.plugins import MixedPrecision
    from lightning_fabric.plugins.environments import TorchElasticEnvironment
finally:
    if _hidden:
        del _MODULES["torchmetrics"]

__all__ = ["Autocast", "Fabric", "TorchElasticEnvironment", "seed_everything"]


class Autocast(MixedPrecision):
    """Mixed precision by autocast alone: what goes into a task and comes out of it is left as it is.

    Fabric would cast every floating tensor of the input to half precision, which autocast does where it may and which a
    batch's weights and a picture's pixels do not need; and it refuses frozen dataclasses, such as `Batch`.
    """

    def convert_input(self, data: Any) -> Any:
        return data

    def convert_output(self, data: Any) -> Any:
        return data
