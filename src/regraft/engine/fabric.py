"""`lightning_fabric` without what it need not import.

To learn the version of torchmetrics it imports all of it, where it is installed: two seconds at every start, for
parts of Fabric that nothing here uses.
"""

from __future__ import annotations

import sys
from types import ModuleType

_MODULES: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
_hidden = "torchmetrics" not in _MODULES
if _hidden:
    _MODULES["torchmetrics"] = None  # an import of it fails as if it were not installed
try:
    from lightning_fabric import Fabric, seed_everything
finally:
    if _hidden:
        del _MODULES["torchmetrics"]

__all__ = ["Fabric", "seed_everything"]
