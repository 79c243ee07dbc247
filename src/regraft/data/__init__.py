"""Floor 1: pictures from folders and tables, their audit, their splits, and the batches made of them."""
