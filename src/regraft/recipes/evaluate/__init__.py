"""The job `evaluate`."""
