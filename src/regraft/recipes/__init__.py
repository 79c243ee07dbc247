"""Floor 5: the jobs. Only these know both configuration and classes."""
