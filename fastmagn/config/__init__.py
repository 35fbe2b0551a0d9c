"""The schema of a run, its command line and its YAML."""
