"""Whether a build is what somebody signed: `model.sig`, the OpenSSF's model signature, by a public key."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.files.whole import is_file

SIGNATURE = "model.sig"


def signature_problems(folder: Path, key: str | Path) -> list[str]:
    """Why the files of a build are not those that the owner of a key signed; nothing where they are.

    key: a public key in PEM. Files that were not signed, such as a card, decide nothing here.

    Raises:
        UserError: no such key, or `model-signing` is not installed.
    """
    library = signing_library()
    if is_missing(key):
        raise UserError(f"--key {shown(str(key))}: no such file; expected a public key in PEM")
    try:
        verifier = library.verifying.Config().use_elliptic_key_verifier(public_key=key)
    except (ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"--key {shown(str(key))} ({reason}): expected a public key in PEM of the curve P-256, P-384 or P-521"
        ) from None
    place = folder / SIGNATURE
    if not is_file(place):
        return [f"it is not signed: it holds no {SIGNATURE}"]
    hashing = library.hashing.Config().set_allow_symlinks(True)
    try:
        verifier.set_hashing_config(hashing).set_ignore_unsigned_files(True).verify(folder, place)
    except Exception as error:  # of the library, of what it reads and of what it checks with
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return [f"the signature does not hold: {reason}"]
    return []


def is_missing(key: str | Path) -> bool:
    return not is_file(Path(key))


def signing_library() -> Any:
    """The modules `hashing`, `signing` and `verifying` of the package `model_signing`.

    Raises:
        UserError: it is not installed.
    """
    try:
        for part in ("hashing", "signing", "verifying"):
            import_module(f"model_signing.{part}")
    except ImportError as error:
        raise UserError(
            f"signatures need the package model-signing ({error}): pip install 'fimaq-deploy[sign]'"
        ) from None
    return import_module("model_signing")
