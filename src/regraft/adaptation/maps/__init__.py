"""Affine maps of features: shallow methods, the adapter, a domain's own statistics, other class shares."""
