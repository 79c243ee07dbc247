"""The job `distance`."""
