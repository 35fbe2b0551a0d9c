"""Image files: how they are found, what their headers say, and how they are decoded."""
