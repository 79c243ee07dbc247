"""A style student as an ONNX file, and the quickest runtime for it."""
