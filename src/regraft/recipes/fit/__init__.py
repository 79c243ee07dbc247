"""The job `fit`."""
