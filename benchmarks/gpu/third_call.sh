#!/usr/bin/env bash
# bash benchmarks/gpu/third_call.sh OUT
#
# The kernel of the views under NVIDIA's instruments: ncu counts what it does, compute-sanitizer looks for races between
# its threads and for accesses out of bounds. Both must be installed; in a rehearsal the views are made without them.
source "$(dirname "$0")/common.sh"

profile=(ncu --set full --kernel-name-base demangled --kernel-name kernel --launch-skip 1 --launch-count 2)
racecheck=(compute-sanitizer --tool racecheck --racecheck-report all --error-exitcode 9)
# cuda.core asks the driver for functions that older ones lack; the sanitizer counts the answers as errors.
memcheck=(compute-sanitizer --tool memcheck --report-api-errors no --error-exitcode 9)
views=("$python" -m benchmarks.gpu.views --device "$device")
batch=(--batch_size 512)
photographs=(--size 224 --batch_size 32)
few=(--batch_size 8 --calls 1)
if [ -n "$rehearse" ]; then
    profile=() racecheck=() memcheck=()
    batch=(--batch_size 4) photographs=(--size 224 --batch_size 1) few=(--batch_size 2 --calls 1)
fi

part views32 60 "${views[@]}" "${batch[@]}"
part ncu32 100 "${profile[@]}" "${views[@]}" "${batch[@]}"
part ncu224 100 "${profile[@]}" "${views[@]}" "${photographs[@]}"
part racecheck32 120 "${racecheck[@]}" "${views[@]}" "${few[@]}"
part racecheck224 120 "${racecheck[@]}" "${views[@]}" "${few[@]}" --size 224
part memcheck32 60 "${memcheck[@]}" "${views[@]}" "${few[@]}"
finish
