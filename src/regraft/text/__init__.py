"""Floor 2: texts: read, looked at, cut into tokens, streamed; their backbones."""
