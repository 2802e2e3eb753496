"""What a purifier is, and those of the papers."""
