"""What speaks for an adapted model without a target label: validators, distances, the alarm, the choice."""
