"""Several labelled domains, none of which is the one that the model is for."""
