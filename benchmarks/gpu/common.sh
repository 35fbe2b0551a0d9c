# Sourced by first_call.sh, second_call.sh and third_call.sh: where results go, what the machine is, and parts with limits.
#
#   OUT                      the first argument of the script: the folder of all results
#   FASTMAGN_DATA            the folder that holds cifar-10-batches-py; without it, the digits are used
#   FASTMAGN_WHEELS          a folder of wheels that the machine lacks; they are installed beside its packages
#   FASTMAGN_REHEARSE=1      every part at toy size on the CPU, to see that each leaves its files
#   FASTMAGN_CALL_S          seconds for the whole script (540)
#   PYTHON                   the interpreter (python3)
#
# A part that fails, or runs past its limit, is recorded in OUT/parts.jsonl with its status, and the next one begins.
set -u
if [ -z "${1:-}" ] || ! mkdir -p "$1"; then
    echo "usage: $0 OUT    a folder that can be written" >&2
    exit 2
fi
# folder NAME PATH: the whole path of a folder that must be there, or nothing if none is named.
folder() {
    [ -z "$2" ] || (cd "$2" 2>/dev/null && pwd) || { echo "error: $1: got '$2'; expected a folder." >&2; return 2; }
}
out=$(folder OUT "$1") || exit 2
data=$(folder FASTMAGN_DATA "${FASTMAGN_DATA:-}") || exit 2
wheels=$(folder FASTMAGN_WHEELS "${FASTMAGN_WHEELS:-}") || exit 2
python=${PYTHON:-python3}
if [ "$python" != "${python#*/}" ]; then
    python_folder=$(folder PYTHON "$(dirname "$python")") || exit 2
    python=$python_folder/$(basename "$python")
fi
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
call_s=${FASTMAGN_CALL_S:-540}
scratch=${TMPDIR:-/tmp}/fastmagn-gpu-$(id -u)
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD:$PWD/kernels${PYTHONPATH:+:$PYTHONPATH}
[ -n "${CUDA_HOME:-}" ] || [ ! -d /usr/local/cuda ] || export CUDA_HOME=/usr/local/cuda

rehearse=${FASTMAGN_REHEARSE:-}
# The checkout may be a fresh copy in each call: what was compiled is kept outside it.
[ -n "$rehearse" ] || export NUMBA_CACHE_DIR=${NUMBA_CACHE_DIR:-$scratch/numba}
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$scratch/inductor}
device=cuda
[ -z "$rehearse" ] || device=cpu
workers=$(($(nproc) > 2 ? $(nproc) - 2 : 2))
[ -z "$rehearse" ] || workers=1
images=(--data.name digits)
augment_images=()
if [ -d "$data/cifar-10-batches-py" ] && [ -z "$rehearse" ]; then
    images=(--data.name cifar10 --data.dir "$data")
    augment_images=(--data_dir "$data")
fi
[ -z "$data" ] || export FASTMAGN_DATA=$data  # for the tests
# What makes a training tiny: fastmagn.train and benchmarks.train take these after everything else.
toy=()
[ -z "$rehearse" ] || toy=(--device cpu --model.name resnet_small --train.batch_size 16 --train.amp float32 --train.compile false)

# part NAME LIMIT_S COMMAND...: run it with a limit, within what is left of the call; its output is OUT/NAME.log.
part() {
    local name=$1 limit=$2 start=$SECONDS status=skipped left
    shift 2
    left=$((call_s - SECONDS))
    [ -z "$rehearse" ] || limit=$((10 * limit))  # kernels may have to be compiled, beside much else
    [ "$limit" -le "$left" ] || limit=$left
    if [ "$limit" -ge 3 ]; then
        timeout --signal=TERM --kill-after=15 "$limit" "$@" >"$out/$name.log" 2>&1 </dev/null
        status=$?
    else
        echo "no time was left" >"$out/$name.log"
        status=-1
    fi
    printf '{"part": "%s", "status": %d, "seconds": %d, "limit_s": %d}\n' \
        "$name" "$status" $((SECONDS - start)) "$limit" | tee -a "$out/parts.jsonl"
}

# What the machine is, as far as it says it in time; nothing here is needed.
describe_machine() {
    { timeout 20 nvidia-smi -q || echo "no nvidia-smi"; } >"$out/nvidia-smi.txt" 2>&1
    { lscpu || cat /proc/cpuinfo; } >"$out/cpu.txt" 2>&1
    timeout 30 "$python" -m pip list --format=json >"$out/packages.json" 2>"$out/packages.log"
    timeout 60 "$python" -c 'import json, torch; from fastmagn.machine.environment import environment
print(json.dumps(environment(torch.device("cuda" if torch.cuda.is_available() else "cpu")), indent=2))' \
        >"$out/environment.json" 2>"$out/environment.log"
}

install_wheels() {
    if [ -n "$wheels" ]; then
        timeout 120 "$python" -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target "$scratch/site" \
            "$wheels"/*.whl >"$out/wheels.log" 2>&1
        export PYTHONPATH=$PYTHONPATH:$scratch/site
    fi
}

# finish: the parts as a table; the script's own status is 0, as each part has its own.
finish() {
    wait
    echo
    "$python" - "$out/parts.jsonl" <<'END'
import json, sys
for line in open(sys.argv[1]):
    part = json.loads(line)
    verdict = {0: "done", 124: "ran past its limit", 137: "was killed at its limit", -1: "was skipped"}
    print(f"{part['part']:16} {part['seconds']:4} s  {verdict.get(part['status'], 'failed: see its log')}")
END
    echo "results: $out"
    exit 0
}

rm -f "$out/parts.jsonl"
install_wheels
# Otherwise each part would start, and fail.
if [ -z "$rehearse" ] && ! timeout 60 "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    echo "error: $python: its PyTorch finds no CUDA device; FASTMAGN_REHEARSE=1 runs every part at toy size on the CPU." >&2
    exit 2
fi
describe_machine &  # it takes a quarter of a minute
