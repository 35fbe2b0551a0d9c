#!/usr/bin/env bash
# bash benchmarks/gpu/first_call.sh OUT
#
# The first nine minutes on a GPU: its tests, the speed of the views and of the paper's training step with its kernels,
# the fast recipe with its evaluation, and rivals. common.sh says which variables it reads; docs/gpus.md describes the results.
source "$(dirname "$0")/common.sh"

tests=(tests/augment/engines tests/augment/test_views.py tests/data/test_source.py tests/exporting/test_load.py
    tests/training/test_muon.py tests/data/test_folder_source.py::test_the_gpu_decodes_the_same_crops)
step=(--config configs/cifar10_magn_augmix.yaml "${images[@]}" --device "$device")
augment=(--device "$device" --backends numba --workers "$workers" "${augment_images[@]}")
if [ -z "$rehearse" ]; then
    rounds=(--rounds 2)
    sizes=(--steps 10 --turns 5 --rival_turns 1 --conventional_steps 1)
    fast=(--eval.corruption_set c18)
    large=(--batch_size 8192 --num_per_image 512)
    small=(--batch_size 512 --num_per_image 512)
    photographs=()
    times=(--methods magn_augmix trivialaugment prime)
    profiled=()
    processes=4
else
    tests=(tests/machine/test_hardware.py)
    rounds=(--rounds 1)
    sizes=(--steps 1 --turns 1 --conventional_steps 1)
    fast=(--eval.corruption_set c15 --eval.num_images 4 --train.epochs 2 --train.clean_epochs 1 --train.max_steps 2)
    large=(--batch_size 16 --num_per_image 4)
    small=(--batch_size 8 --num_per_image 4)
    photographs=(--batch_size 2 --num_per_image 2 --only_ours)
    times=(--batches 4 --turns 1)
    profiled=(--steps 4)
    processes=0
fi

# Two compilers at once: torch's for the step, which later parts find in its cache, and numba's in the tests.
part compile 170 "$python" -m benchmarks.train "${step[@]}" --steps 1 --turns 1 --conventional_steps 0 "${toy[@]}" &
part tests 170 "$python" -m pytest -q -o addopts= -m "not slow" -n "$processes" -p no:cacheprovider \
    --junitxml="$out/tests.xml" "${tests[@]}"
wait
part view_times 60 "$python" -m benchmarks.gpu.view_times --device "$device" "${times[@]}" --out "$out/view_times.json"
part train 80 "$python" -m benchmarks.train "${step[@]}" "${sizes[@]}" --workers "$workers" --out "$out/train.json" \
    "${toy[@]}"
part step_kernels 50 "$python" -m benchmarks.gpu.step_kernels "${step[@]}" "${profiled[@]}" --out "$out/step_kernels.json" \
    "${toy[@]}"
part fast 200 "$python" -m fastmagn.train --config configs/fast/cifar10.yaml "${images[@]}" --device "$device" \
    --run_dir "$out/fast" "${fast[@]}" "${toy[@]}"
part augment32 90 "$python" -m benchmarks.augment "${augment[@]}" "${rounds[@]}" "${small[@]}" --out "$out/augment32.json"
part augment32_8192 40 "$python" -m benchmarks.augment "${augment[@]}" "${rounds[@]}" "${large[@]}" --only_ours \
    --out "$out/augment32_8192.json"
part augment224 90 "$python" -m benchmarks.augment "${augment[@]}" "${rounds[@]}" "${photographs[@]}" --size 224 \
    --out "$out/augment224.json"
finish
