"""Between two sets of pictures without pairs."""
