"""The random stream, and everything that is drawn from it."""
