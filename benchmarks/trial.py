"""A command of ours in a process of its own, which can be killed, stopped, starved and listened to.

It is forked from a process that has imported everything already: thousands of trials would else wait for imports.
"""

from __future__ import annotations

import os
import select
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from fimaq_deploy.cli import main as command_line

# A model that is built in seconds; `--model chaos_model:make`.
MODEL = """
import torch
from timm.models.vision_transformer import VisionTransformer

def make():
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=10).eval()
"""


def warm_up(folder: Path) -> None:
    """Import what a build imports, without a thread that a fork would lose. folder: where the model's module goes."""
    (folder / "chaos_model.py").write_text(MODEL)
    sys.path.insert(0, str(folder))
    import onnxruntime  # noqa: F401
    import timm  # noqa: F401
    import torch

    import fimaq_deploy.pipeline.builds  # noqa: F401

    torch.set_num_threads(1)


class Trial:
    """Begins when it is made. before: called in the new process."""

    def __init__(self, arguments: Sequence[str], before: Callable[[], None] | None = None) -> None:
        self._read, write = os.pipe()
        self.said, self.code = "", 0
        self.pid = os.fork()
        if not self.pid:
            _become(arguments, before, write)
        os.close(write)

    def wait_for(self, word: str, timeout_s: float = 600) -> bool:
        """Whether a line that begins with the word has come before the process ended."""
        end = time.monotonic() + timeout_s
        while not any(line.startswith(word) for line in self.said.splitlines()):
            if not select.select([self._read], [], [], max(0, end - time.monotonic()))[0]:
                return False
            if not self._listen():
                return False
        return True

    def _listen(self) -> bool:
        read = os.read(self._read, 2**16)
        self.said += read.decode(errors="replace")
        return bool(read)

    def ended_within(self, seconds: float) -> bool:
        """Whether it has ended by itself."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self._read], [], [], left)[0] and not self._listen():
                return True
        return False

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def finish(self) -> str:
        """Wait for its end. Returns what it said; `code` is below zero for a signal."""
        while self._listen():
            pass
        os.close(self._read)
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.said

    @property
    def last_lines(self) -> list[str]:
        """The lines with which a command ends that was refused or stopped."""
        return [line for line in self.said.splitlines() if line.startswith(("error: ", "stopped: "))]

    @property
    def steps_done(self) -> int:
        return sum(line.endswith(" s") and len(line.split()) == 3 for line in self.said.splitlines())


def _become(arguments: Sequence[str], before: Callable[[], None] | None, write: int) -> None:
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(write, 2)
        os.close(write)
        if before:
            before()
        command_line(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)
