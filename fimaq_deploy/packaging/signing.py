"""Who made a build: the OpenSSF's model signature over all of its files, by a key of one's own (extra `sign`).

The signature is a Sigstore bundle, `model.sig`, as the `model_signing` command writes and reads it. Nothing here is a
format of our own, and nothing is sent anywhere.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.manifest import MANIFEST
from fimaq_deploy.packaging.facts import Facts
from fimaq_deploy.runtime.signature import SIGNATURE, is_missing, signing_library


def signature_of(facts: Facts, key: str | Path) -> bytes:
    """The signature of a build's files.

    key: a private key in PEM of the curve P-256, P-384 or P-521, without a passphrase.

    Raises:
        UserError: no such key, another kind of key, or `model-signing` is not installed.
    """
    library = signing_library()
    if is_missing(key):
        raise UserError(f"--sign {shown(str(key))}: no such file; expected a private key in PEM")
    folder = facts.artifact.path
    strangers = [path.name for path in folder.iterdir() if path.name not in {*facts.names, MANIFEST}]
    hashing = library.hashing.Config().set_ignored_paths(paths=strangers).set_allow_symlinks(True)
    with TemporaryDirectory() as beside:
        place = Path(beside) / SIGNATURE
        try:
            signer = library.signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(hashing)
        except (ValueError, TypeError, AttributeError) as error:  # as cryptography says that it is none, or has a lock
            reason = " ".join(str(error).split())[:120]
            raise UserError(
                f"--sign {shown(str(key))} ({reason}): expected a private key in PEM of the "
                "curve P-256, P-384 or P-521, without a passphrase"
            ) from None
        signer.sign(folder, place)
        return place.read_bytes()
