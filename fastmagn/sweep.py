"""python -m fastmagn.sweep: many runs on Ray, here or on a cluster; the same command goes on with those left.

python -m fastmagn.sweep --config FILE --grid loss.jsd_weight=10,12 --grid train.seed=0,1,2 --out DIR
"""

from fastmagn.machine.command import run_command
from fastmagn.machine.console import console
from fastmagn.sweeping.arguments import parse_arguments
from fastmagn.sweeping.definition import definition, keep_definition, make_trials
from fastmagn.sweeping.on_ray import check_ray
from fastmagn.sweeping.shown import Board
from fastmagn.sweeping.sweep import alone, check_names, conclude, is_finished, run_left


def main(arguments: list[str]) -> int:
    request = parse_arguments(arguments)
    base, trials = make_trials(request.arguments, request.search, request.out)
    for trial in trials:
        check_names(trial.config)
    check_ray()
    with alone(request.out):
        keep_definition(request.out, definition(base, request.search))
        board = Board(trials, {trial.name for trial in trials if is_finished(trial)})
        done = sum(state == "finished" for state in board.states.values())
        before = f", {done} of them finished before" if done else ""
        console.print(f"sweep: {len(trials)} trials{before}, in {request.out}", soft_wrap=True)
        signal_number = run_left(trials, board, request.machines)
        return conclude(trials, board, request.out, signal_number)


if __name__ == "__main__":
    run_command(main)
