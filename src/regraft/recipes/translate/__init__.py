"""The job `translate`."""
