#!/usr/bin/env bash
# What an NVIDIA GPU has to prove, in one run: learning, then parity and latency of every engine that runs there.
#
#   benchmarks/gpu.sh
#   benchmarks/gpu.sh --image-folder calibration/ --eval-folder validation/
#
# Needs torch with CUDA, timm and the packages it names where one is missing; the package itself need not be installed.
# Without folders of images it calibrates on generated ones and reports on how many the quantized model agrees with the
# original. Everything after the script's name goes to gpu.py, for example --weights random, --models vit_s, or
# --device cpu --targets onnxruntime-cpu to try it without a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

"$python" - <<'CHECK'
import importlib.util
import sys

needed = {"torch": "torch", "timm": "timm", "pydantic": "pydantic", "yaml": "pyyaml", "safetensors": "safetensors"}
missing = [package for module, package in needed.items() if importlib.util.find_spec(module) is None]
if missing:
    sys.exit(f"error: missing {' '.join(missing)}: python3 -m pip install {' '.join(missing)}")
CHECK

exec "$python" benchmarks/gpu.py "$@"
