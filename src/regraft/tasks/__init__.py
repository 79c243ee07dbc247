"""Floor 3: what is minimised, and all that is special about a kind of labels; one folder a kind."""
