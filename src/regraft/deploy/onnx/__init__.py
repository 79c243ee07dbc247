"""A classifier or regression as an ONNX file, and answers from one."""
