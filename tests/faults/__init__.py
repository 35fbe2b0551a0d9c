"""Real training processes, and harm done to them: python -m tests.faults --rounds 50."""
