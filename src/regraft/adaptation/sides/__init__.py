"""What an adaptation asks of the kind of labels: one file for each kind that can be adapted."""

from regraft.adaptation.sides.base import Judged, Side, sides
from regraft.adaptation.sides.classes import ClassSide
from regraft.adaptation.sides.numbers import NumberSide

__all__ = ["ClassSide", "Judged", "NumberSide", "Side", "sides"]
