"""The job `adapt`."""
