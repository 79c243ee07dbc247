"""Floor 4: an artifact at work: a predictor, and an ONNX file that needs nothing of this package."""
