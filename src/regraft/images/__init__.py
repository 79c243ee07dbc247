"""Floor 2: pictures: read, looked at, transformed, streamed; their backbones."""
