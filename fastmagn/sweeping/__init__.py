"""What `python -m fastmagn.sweep` is made of: the definition of a sweep, a trial's process, Ray, what is shown."""
