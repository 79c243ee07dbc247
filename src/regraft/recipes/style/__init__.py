"""The jobs of `style`: one picture, and the making of students."""
