"""Networks that paint or look, and their files."""
