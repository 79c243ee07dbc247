"""The job `models`."""
