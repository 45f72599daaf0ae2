"""What a public key says of a build; how builds are signed is tested beside `packaging.signing`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.runtime.signature import SIGNATURE, signature_problems, signing_library
from fimaq_deploy.runtime.verification import verify_artifact


@pytest.fixture
def key(tmp_path: Path) -> Path:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    place = tmp_path / "own.pub"
    place.write_bytes(public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return place


def test_a_signature_that_is_none_is_a_problem_and_no_traceback(tmp_path: Path, key: Path) -> None:
    assert signature_problems(tmp_path, key) == [f"it is not signed: it holds no {SIGNATURE}"]
    for junk in (b"", b"{}", b"no signature", b"[" * 3000, b'{"mediaType": 1}'):
        (tmp_path / SIGNATURE).write_bytes(junk)
        (why,) = signature_problems(tmp_path, key)
        assert why.startswith("the signature does not hold: ") and "\n" not in why


def test_verify_asks_for_the_signature_where_a_key_is_given(artifact: Path, key: Path) -> None:
    assert verify_artifact(artifact, time=False).good
    found = verify_artifact(artifact, time=False, key=key)
    assert found.problems == (f"it is not signed: it holds no {SIGNATURE}",)


def test_without_the_library_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("model_signing", *(name for name in sys.modules if name.startswith("model_signing."))):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"^signatures need the package model-signing .*fimaq-deploy\[sign\]"):
        signing_library()
