"""python -m fastmagn.corrupt: make a -C set of any test images, or check one that was made.

python -m fastmagn.corrupt --dataset cifar10 --data_dir DIR --out DIR [--num_images N] [--seed S] ...
python -m fastmagn.corrupt --verify --out DIR [--data_dir DIR]

The command's code is in corrupted_set.py: `from fastmagn import corrupt` is the function.
"""

import sys

from fastmagn.corruptions import corrupt
from fastmagn.evaluation.corrupt_command import main
from fastmagn.machine.command import run_command

if __name__ == "__main__":
    run_command(main)
elif __name__ == "fastmagn.corrupt":
    # Imported, not run. An import puts what stands here into the package as `corrupt`: the function has to stay that.
    sys.modules[__name__] = corrupt
