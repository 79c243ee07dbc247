"""Floor 2: giving a picture the style of others: perceptual networks, losses, methods, evaluation. One class a method.

`methods` finds every method by its name; a file with a registered class, imported here, is all that a new one needs.
"""

from regraft.style.base import Styler, StyleSettings, StyleStep
from regraft.style.methods import any_style, colour, fixed, gatys
from regraft.style.networks.perceptual import PerceptualNetwork, networks, perceptual

__all__ = [
    "PerceptualNetwork",
    "StyleSettings",
    "StyleStep",
    "Styler",
    "any_style",
    "colour",
    "fixed",
    "gatys",
    "networks",
    "perceptual",
]
