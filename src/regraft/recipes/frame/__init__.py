"""What every job stands in: its run, its options, its time."""
