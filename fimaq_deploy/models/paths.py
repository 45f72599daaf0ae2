"""What lies at a path that a user gave."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal

from fimaq_deploy.errors import UserError, shown


def kind_of(path: str | Path) -> Literal["file", "folder"] | None:
    """None for nothing. Links are followed; pipes and devices are files.

    Raises:
        UserError: it cannot be looked at: no name or too long a one, a loop of links, no permission.
    """
    if not str(path):
        raise UserError("an empty path: expected the name of a file or a folder")
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
        return None
    except OSError as error:
        raise UserError(f"{shown(str(path))}: {os.strerror(error.errno or 0).lower()}") from None
    return "folder" if stat.S_ISDIR(mode) else "file"
