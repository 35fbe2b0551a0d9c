"""python -m fastmagn.theory: the geometry of the loss near test images, of several trained runs.

python -m fastmagn.theory RUN [RUN ...] --out DIR [--num_images N] [--seed S] ...
"""

from fastmagn.machine.command import run_command
from fastmagn.theory.command import main

if __name__ == "__main__":
    run_command(main)
