"""What the program asks of the machine: console, files, signals, processes, hardware."""
