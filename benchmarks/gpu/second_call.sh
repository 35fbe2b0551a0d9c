#!/usr/bin/env bash
# bash benchmarks/gpu/second_call.sh OUT [RUN]
#
# The paper's 150 epochs on CIFAR-10 with their evaluation, in OUT/paper. A call has nine minutes; what it leaves is
# resumed by the next call, from the folder RUN that it is given (OUT/paper of the call before, or a copy of it).
before=${2:+$(realpath -m "$2")}
source "$(dirname "$0")/common.sh"

before=$(folder RUN "$before") || exit 2
if [ -n "$before" ] && [ ! -e "$out/paper" ]; then
    rm -rf "$out/paper.partial"
    cp -r "$before" "$out/paper.partial" && mv "$out/paper.partial" "$out/paper" || exit 2
fi
options=(--eval.corruption_set c18)
[ -z "$rehearse" ] || options=(--eval.corruption_set c15 --eval.num_images 4 --train.max_steps 2)

# It is stopped 70 s early, by SIGTERM: the step is finished and a checkpoint saved. A finished run gets its report.
part paper $((call_s - SECONDS - 70)) "$python" -m fastmagn.train --config configs/cifar10_magn_augmix.yaml \
    "${images[@]}" --device "$device" --run_dir "$out/paper" "${options[@]}" "${toy[@]}"
if [ -f "$out/paper/results.json" ]; then
    part report 60 "$python" -m fastmagn.report "$out/paper" --out "$out/report"
fi
finish
