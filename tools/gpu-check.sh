#!/bin/sh
# Everything to be learned from a CUDA device in one run of at most SECONDS (300): tools/gpu_check.py, its results in the folder
# OUTPUT as gpu-check.json and its table on the terminal.
#
#     tools/gpu-check.sh OUTPUT [SECONDS]
#
# PYTHON (python3) must have torch, Triton, NumPy and mpmath. A machine without compiler, pip and network takes the core that an
# editable install left in bce_bridge/, and cffi from build/gpu-check (pip install --target build/gpu-check --only-binary :all:
# --python-version 3.12 cffi). Without a device the rehearsal runs: TRITON_INTERPRET=1, small sizes, no times.
set -eu
output=${1:?usage: gpu-check.sh OUTPUT [SECONDS]}
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$output"
PYTHONPATH="$root:$root/tests:$root/build/gpu-check${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" "$root/tools/gpu_check.py" "$output/gpu-check.json" "${2:-300}"
