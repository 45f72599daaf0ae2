"""`report.json` from disk, of this version or an earlier one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.files.folders import settle_folder
from fimaq_deploy.files.reading import read_text
from fimaq_deploy.manifest import check_file
from fimaq_deploy.report.schema import SCHEMA, Report

REPORT = "report.json"
_MOST_MB = 256
_WANTED = f"a {REPORT} or the folder of a build"
_FAMILY, _, _VERSION = SCHEMA.rpartition("/")


def load_report(path: str | Path) -> Report:
    """The report in a file, or in the folder of a build.

    Raises:
        UserError: there is none, it is cut off, of something else or of a later version, or is not what its build
            wrote.
    """
    settle_folder(Path(path))
    file = Path(path) / REPORT if Path(path).is_dir() else Path(path)
    check_file(file)
    document = _read(file)
    _check_schema(file, document)
    try:
        return Report.model_validate(document)
    except ValidationError as error:
        raise UserError(f"{file}: {_first(error)}") from error


def _read(file: Path) -> Any:
    try:
        text = read_text(file, "report", wanted=_WANTED, most_mb=_MOST_MB)
        document = json.loads(text)
        if "\\ud" in text.lower():  # JSON can spell what no file can hold: half of a surrogate pair
            json.dumps(document, ensure_ascii=False).encode()
        return document
    except json.JSONDecodeError as error:
        raise UserError(
            f"{file} is cut off or is not JSON (line {error.lineno}: {error.msg}); build again to replace it"
        ) from error
    except (RecursionError, ValueError) as error:  # a nest or a number without an end
        raise UserError(f"{file} is no {REPORT} of a build ({shown(str(error))}); build again to replace it") from error


def _check_schema(file: Path, document: Any) -> None:
    """That it is a report, of a version that is known here."""
    schema = document.get("schema") if isinstance(document, dict) else None
    family, _, version = schema.rpartition("/") if isinstance(schema, str) else ("", "", "")
    if family != _FAMILY or not re.fullmatch("[0-9]{1,6}", version):
        raise UserError(f"{file} is not a report of fimaq-deploy: expected JSON with schema {SCHEMA}")
    if int(version) > int(_VERSION):
        raise UserError(f"{file} has schema {schema}, newer than {SCHEMA} here: upgrade fimaq-deploy to read it")


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, and what to do."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown field {place}; a newer fimaq-deploy wrote it: upgrade to read it"
    return f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}; build again to replace it"
