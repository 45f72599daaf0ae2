#!/usr/bin/env bash
# The table that papers on quantized vision transformers report, on ImageNet, by one command that may be stopped and
# started again:
#
#   benchmarks/imagenet.sh IMAGENET
#
# IMAGENET holds train/ and val/, each with a folder a class, named after its synset (n01440764, ...). Weights come from
# the hub, through timm. Published figures stand beside those that were measured. Options: see imagenet.py, for example
# --models deit_t --bits 4 --settings presets, --device cpu, or --set reconstruction.iterations=1000.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" benchmarks/imagenet.py "$@"
