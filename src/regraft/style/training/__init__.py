"""What style networks learn, and how they are made smaller."""
