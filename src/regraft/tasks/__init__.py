"""Floor 2: what is minimised."""

from regraft.tasks.classification.task import Classification
from regraft.tasks.linear import LinearTask
from regraft.tasks.regression.task import Regression

__all__ = ["Classification", "LinearTask", "Regression"]
