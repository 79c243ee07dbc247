"""Floor 1: making a trained network smaller: channels cut away, weights and activations in 8 bits. Knows no task."""
