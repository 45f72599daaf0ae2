"""What a build says that it will need, beside what it then takes.

    python benchmarks/memory.py                         vision transformers of 6, 22 and 86 million parameters
    python benchmarks/memory.py --models tiny --targets onnxruntime-cpu

Each build is a process of its own, with random weights, drawn images and hardly any learning, which changes how long
it takes and not what it holds. Prints what was told, the peak of the process, and that of the largest process that it
started (what measures the memory of a file alone). Ends in one line of JSON; exit code 1 where a row is off by more
than 1.5.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

# Width, blocks, heads, side of an image, images.
MODELS = {
    "tiny": (192, 12, 3, 224, 32),
    "small": (384, 12, 6, 224, 32),
    "base": (768, 12, 12, 224, 32),
    "base-384": (768, 12, 12, 384, 8),
    "narrow": (96, 2, 3, 512, 8),
    "wide": (1024, 8, 16, 224, 16),
}
FACTORY = """
import torch
from timm.models.vision_transformer import VisionTransformer

def make():
    torch.manual_seed(0)
    return VisionTransformer(img_size={side}, embed_dim={width}, depth={depth}, num_heads={heads}).eval()
"""
# The command in this process, then the peaks of this one and of those it has waited for.
BUILD = """
import resource, sys
from pathlib import Path
from fimaq_deploy.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    own = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    print("peaks", *own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
    sys.exit(end.code)
"""
ALLOWED = 1.5


def measured(name: str, targets: list[str], recipe: str, tuning: int, folder: Path) -> dict[str, float | str]:
    """GiB: told, the peak of the build, and that of the largest process it started; and their ratio."""
    width, depth, heads, side, count = MODELS[name]
    module = f"memory_{name.replace('-', '_')}"
    (folder / f"{module}.py").write_text(FACTORY.format(side=side, width=width, depth=depth, heads=heads))
    np.save(folder / "images.npy", np.random.default_rng(0).standard_normal((count, 3, side, side), dtype=np.float32))
    words = ["build", "--model", f"{module}:make", "--images", "images.npy", "--out", "built"]
    words += [word for target in targets for word in ("--target", target)] + ["--recipe", recipe, "--overwrite"]
    for setting in ("reconstruction.iterations=2", "scale_search.candidates=2", f"tuning.iterations={tuning}"):
        words += ["--set", setting]
    done = subprocess.run([sys.executable, "-c", BUILD, *words], cwd=folder, capture_output=True, text=True)
    told = re.search(r"^memory +about ([\d.]+) GiB", done.stderr, re.MULTILINE)
    peaks = re.search(r"^peaks (\d+) (\d+)", done.stderr, re.MULTILINE)
    if done.returncode or told is None or peaks is None:
        raise SystemExit(f"{name}: exit {done.returncode}: {done.stderr[-800:]}")
    own, child = (int(number) / 2**20 for number in peaks.groups())
    said = next(line for line in done.stderr.splitlines() if line.startswith("memory "))
    return {
        "model": name,
        "said": said,
        "told": float(told[1]),
        "own": own,
        "child": child,
        "ratio": float(told[1]) / own,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=["tiny", "small", "base"])
    parser.add_argument("--targets", nargs="*", default=["onnxruntime-cpu"])
    parser.add_argument("--recipe", default="w8a8")
    parser.add_argument("--tuning", type=int, default=1, help="Iterations of joint tuning; 0 for none.")
    asked = parser.parse_args()
    rows = []
    print("| model | targets | told | peak | told / peak | largest process beside it |\n| --- | --- |" + " ---: |" * 4)
    for name in asked.models:
        with TemporaryDirectory(prefix="fimaq-memory-") as folder:
            row = measured(name, asked.targets, asked.recipe, asked.tuning, Path(folder))
        rows.append(row)
        cells = (f"{row[key]:.2f}" for key in ("told", "own", "ratio", "child"))
        print(f"| {name} | {', '.join(asked.targets)} | {' | '.join(cells)} |", flush=True)
    print(json.dumps({"schema": "fimaq-deploy/memory/1", "rows": rows}))
    return 1 if any(not 1 / ALLOWED <= float(row["ratio"]) <= ALLOWED for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
