"""Which of timm's pretrained names are accepted, by the class of their model, and why others are refused.

    python benchmarks/timm_names.py [--modules eva beit ...]     a table, and one JSON line at the end

Models are made without numbers (torch's meta device): nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter
from collections.abc import Iterator

import timm
import torch
from torch import nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import require_supported

# Those whose models are transformers of one resolution or of windows.
MODULES = (
    "beit",
    "deit",
    "eva",
    "naflexvit",
    "swin_transformer",
    "swin_transformer_v2",
    "swin_transformer_v2_cr",
    "vision_transformer",
    "vision_transformer_hybrid",
    "vision_transformer_relpos",
    "vision_transformer_sam",
)
ACCEPTED = "accepted"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", nargs="+", default=MODULES, help="of timm.models")
    found = counted(parser.parse_args().modules)
    for (module, kind, verdict), count in sorted(found.items()):
        print(f"{count:5}  {module:28} {kind:28} {verdict}")
    accepted = sum(count for (*_, verdict), count in found.items() if verdict == ACCEPTED)
    print(json.dumps({"timm": timm.__version__, "accepted": accepted, "refused": found.total() - accepted}))


def counted(modules: list[str] | tuple[str, ...]) -> Counter[tuple[str, str, str]]:
    """Pretrained names by module, class and verdict."""
    found: Counter[tuple[str, str, str]] = Counter()
    for module in modules:
        for architecture, tags in _pretrained(module):
            kind, verdict = _verdict(architecture)
            found[module, kind, verdict] += tags
    return found


def _pretrained(module: str) -> Iterator[tuple[str, int]]:
    """Each architecture of a module with the number of its pretrained names."""
    for architecture in timm.list_models(module=module):
        tags = [name for name in timm.list_pretrained(f"{architecture}*") if name.split(".")[0] == architecture]
        if tags:
            yield architecture, len(tags)


def _verdict(architecture: str) -> tuple[str, str]:
    """The class of an architecture, and whether it is accepted or why not."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: nn.Module = timm.create_model(architecture)
    try:
        require_supported(model)
    except UserError as error:
        return type(model).__name__, str(error).split(": expected")[0]
    return type(model).__name__, ACCEPTED


if __name__ == "__main__":
    main()
