"""python -m fastmagn.corrupt: make a -C set of any test images, or verify one that was made.

python -m fastmagn.corrupt --dataset cifar10 --data_dir DIR --out DIR [--num_images N] [--seed S] ...
python -m fastmagn.corrupt --verify --out DIR [--data_dir DIR]

The command's code is in evaluation/corrupt_command.py, because `from fastmagn import corrupt` gives the function.
"""

import sys

if __name__ == "__main__":
    from fastmagn.evaluation.corrupt_command import main
    from fastmagn.machine.command import run_command

    run_command(main)
elif __name__ == "fastmagn.corrupt":
    from fastmagn.corruptions import corrupt

    # An import sets the package's attribute `corrupt` to what stands here, and that must stay the function.
    sys.modules[__name__] = corrupt
