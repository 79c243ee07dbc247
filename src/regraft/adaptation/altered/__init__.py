"""Source pictures altered: in the target's style, by chance, or as the target seems to have been taken."""
