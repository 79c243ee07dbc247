"""Floor 2: what is minimised."""

from regraft.tasks.classification import Classification

__all__ = ["Classification"]
