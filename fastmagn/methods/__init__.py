"""Training methods, one file for each or for a family of them."""
