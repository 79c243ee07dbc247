"""The candidates of an adaptation: on cached features, or the whole network."""
