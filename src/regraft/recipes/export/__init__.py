"""The job `export`."""
