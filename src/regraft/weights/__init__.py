"""Weights that are part of the package, each with its card."""
