"""Floor 1: pretrained networks behind one contract."""

from regraft.images.backbones.base import ImageBackbone, families
from regraft.images.backbones.catalogue import create, known_models

__all__ = ["ImageBackbone", "create", "families", "known_models"]
