"""What a build says of a ruined and of a well quantized model, for every kind of output.

    python benchmarks/verdicts.py                       the table of docs/, about five minutes on two cores
    python benchmarks/verdicts.py --kinds regression

A small model for each kind is built twice: ruined on purpose, with scales of the largest value at 3 bits and nothing
learned, and quantized well, to 8 bits. Each time it is held to the threshold of its kind that needs no labels. Prints a
table and ends in one line of JSON; exit code 1 where a ruined model passes or a good one fails.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

FACTORIES = Path(__file__).stem  # models of this file, as `--model` names them
VIT: dict[str, Any] = {"img_size": 64, "embed_dim": 96, "depth": 3, "num_heads": 3}
SWIN: dict[str, Any] = {"img_size": 64, "embed_dim": 48, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
QUICK = ["reconstruction.images=32", "tuning.iterations=0"]
RUINED = ("w3a3", [*QUICK, "scale_search.candidates=1", "reconstruction.iterations=0"])
GOOD = ("w8a8", [*QUICK, "reconstruction.iterations=5"])


def spread(model: nn.Module) -> nn.Module:
    """Weights large enough for outputs to differ from image to image."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "pos" not in name:
            nn.init.normal_(parameter, std=0.06, generator=generator)
    return model.eval()


def embedding() -> nn.Module:
    return spread(VisionTransformer(**VIT, num_classes=0))


def several_labels() -> nn.Module:
    return spread(VisionTransformer(**VIT, num_classes=20))


def one_number() -> nn.Module:
    return spread(VisionTransformer(**VIT, num_classes=1))


def tokens() -> nn.Module:
    return spread(VisionTransformer(**VIT, num_classes=0, global_pool=""))


def feature_map() -> nn.Module:
    return spread(SwinTransformer(**SWIN, num_classes=0, global_pool=""))


class Heads(nn.Module):
    """Two outputs by name from one vector."""

    def __init__(self) -> None:
        super().__init__()
        self.kind, self.pose = nn.Linear(96, 4), nn.Linear(96, 3)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        return {"kind": self.kind(features), "pose": self.pose(features)}


def two_heads() -> nn.Module:
    model: Any = VisionTransformer(**VIT, num_classes=20)
    model.head = Heads()
    return spread(model)


@dataclass(frozen=True)
class Case:
    """One kind of output. options: of `build`, with the threshold that needs no labels."""

    kind: str
    model: str
    options: tuple[str, ...]


CASES = (
    Case("classes, labelled", "swin_shapes", ("--max-drop", "5", "--min-agreement", "95")),
    Case("embedding", f"{FACTORIES}:embedding", ("--min-cosine", "0.99")),
    Case("multilabel", f"{FACTORIES}:several_labels", ("--task", "multilabel", "--min-agreement", "97")),
    Case("regression", f"{FACTORIES}:one_number", ("--min-cosine", "0.99")),
    Case("dense, tokens", f"{FACTORIES}:tokens", ("--min-cosine", "0.99")),
    Case("dense, a map", f"{FACTORIES}:feature_map", ("--min-cosine", "0.99")),
)
TWO_HEADS = Case("two outputs", f"{FACTORIES}:two_heads", ("--task", "kind=classes", "--min-cosine", "0.99"))


@dataclass(frozen=True)
class Outcome:
    """What a build ended in. figures: each output's headline against the original, as the report has it."""

    kind: str
    recipe: str
    exit_code: int
    status: str
    headline: str
    figures: dict[str, float | None]
    failures: list[str]


def write_images(folder: Path, count: int = 96) -> Path:
    """Smooth noise, as PNG files."""
    from PIL import Image

    folder.mkdir(parents=True)
    coarse = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    noise = nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic")
    pixels = (127.5 * (1 + 0.5 * noise / noise.std())).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    for number, image in enumerate(pixels):
        Image.fromarray(np.ascontiguousarray(image)).save(folder / f"{number:03}.png")
    return folder


def outcome(case: Case, recipe: tuple[str, Sequence[str]], images: Path, out: Path) -> Outcome:
    """One build, by the command line."""
    from fimaq_deploy.report import load_report
    from fimaq_deploy.report.build_page.verdict import status, verdict
    from fimaq_deploy.report.figures import headlines
    from fimaq_deploy.report.gates import failures

    name, settings = recipe
    given = ("--images", str(images)) if ":" in case.model else ()
    sets = [word for setting in settings for word in ("--set", setting)]
    command = ["build", "--model", case.model, *given, "--recipe", name, *sets, "--target", "onnxruntime-cpu"]
    code, printed = run_command([*command, *case.options, "--out", str(out), "--device", "cpu"])
    if code not in (0, 1):
        raise RuntimeError(f"{case.kind}: {printed[-2000:]}")
    report = load_report(out)
    row = report.deployed[0]
    return Outcome(
        kind=case.kind,
        recipe=name,
        exit_code=code,
        status=status(report)[0],
        headline=verdict(report),
        figures={
            f"{one.output.name if one.output else ''}.{one.meaning.name}": one.value for one in headlines(report, row)
        },
        failures=failures(report, report.max_drop),
    )


def run_command(words: Sequence[str]) -> tuple[int, str]:
    """The exit code of `fimaq-deploy WORDS`, in this process, and what it printed."""
    from fimaq_deploy.cli import main as command

    printed = io.StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            command(words)
    except SystemExit as ended:
        return int(ended.code or 0), printed.getvalue()
    raise AssertionError("the command always ends in SystemExit")


def outcomes(cases: Sequence[Case], folder: Path) -> Iterator[Outcome]:
    """Ruined, then well quantized, of each case."""
    images = write_images(folder / "images")
    for number, case in enumerate(cases):
        for recipe in (RUINED, GOOD):
            yield outcome(case, recipe, images, folder / f"{number}-{recipe[0]}")


def line(found: Outcome) -> str:
    told = found.headline.partition("ONNX Runtime CPU: ")[2].partition(", ")
    ruined = f"{told[0]}, {told[2].partition(', ')[0]}" if told[0] == "ruined" else told[0]
    recipe = "ruined (W3A3)" if found.recipe == RUINED[0] else "good (W8A8)"
    return f"| {found.kind} | {recipe} | {found.status} | {ruined} | {found.exit_code} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", help="only cases whose kind begins with one of these")
    asked = parser.parse_args().kinds
    cases = [one for one in (*CASES, TWO_HEADS) if not asked or one.kind.startswith(tuple(asked))]
    sys.path.insert(0, str(Path(__file__).parent))
    print("| output | recipe | status | told | exit code |\n|---|---|---|---|---:|", flush=True)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for one in outcomes(cases, Path(folder)):
            print(line(one), flush=True)
            found.append(one)
    print(json.dumps([asdict(one) for one in found]))
    return int(any((one.exit_code == 1) != (one.recipe == RUINED[0]) for one in found))


if __name__ == "__main__":
    sys.exit(main())
