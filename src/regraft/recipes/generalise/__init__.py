"""The job `generalise`."""
