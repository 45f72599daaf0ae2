#!/usr/bin/env bash
# Reconstruction of the models that papers report, on an NVIDIA GPU: minutes, memory, share of the matrix rate, accuracy.
#
#   benchmarks/gpu.sh
#   benchmarks/gpu.sh --image-folder calibration/ --eval-folder validation/
#
# Needs torch with CUDA, timm and the packages it names where one is missing; the package itself need not be installed.
# Without folders of images it calibrates on generated ones and reports on how many the quantized model agrees with the
# original. Everything after the script's name goes to reconstruction.py and overrides what stands here, for example
# --weights random, --models vit_s, or --device cpu to try it without a GPU.
# With REFERENCE=20000 the published procedure runs too, at that many iterations a block: hours for each model.
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

reference=(--no-reference)
if [ -n "${REFERENCE:-}" ]; then
    reference=(--reference-iterations "$REFERENCE")
fi

exec "$python" benchmarks/reconstruction.py --device cuda --models vit_s deit_s swin_t swin_b --recipes w4a4 w3a3 \
    --ranks 5 15 --images 1024 --seeds 0 "${reference[@]}" "$@"
