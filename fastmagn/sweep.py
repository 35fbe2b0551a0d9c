"""python -m fastmagn.sweep: many runs on Ray, here or on a cluster. The same command resumes an interrupted sweep.

python -m fastmagn.sweep --config FILE --grid loss.jsd_weight=10,12 --grid train.seed=0,1,2 --out DIR
"""

from fastmagn.machine.command import run_command
from fastmagn.sweeping.arguments import parse_arguments


def main(arguments: list[str]) -> int:
    request = parse_arguments(arguments)
    from fastmagn.sweeping.sweep import run_sweep  # here, as it imports Ray and PyTorch

    return run_sweep(request)


if __name__ == "__main__":
    run_command(main)
