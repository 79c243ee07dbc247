"""Floor 0: the nouns, the errors, the registry, the run directory and the artifact format. Imports nothing above it."""
