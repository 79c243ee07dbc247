"""Pictures of any size: tiles, pyramids, norms held at the whole picture's statistics."""
