"""A build that is signed: by whom, and that nothing of it was changed since; also beside the standard's own command."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import MANIFEST
from fimaq_deploy.packaging.packages import package
from fimaq_deploy.runtime.signature import SIGNATURE, signature_problems

PEM, PLAIN = serialization.Encoding.PEM, serialization.NoEncryption()


def written(folder: Path, name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> tuple[Path, Path]:
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, PLAIN))
    public.write_bytes(key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return written(tmp_path, "own", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def signed(artifact: Path, keys: tuple[Path, Path], tmp_path: Path) -> Path:
    return package(artifact, "hf", out=tmp_path / "hub", sign=keys[0]).out


def test_what_its_owner_signed_holds(signed: Path, keys: tuple[Path, Path]) -> None:
    assert signature_problems(signed, keys[1]) == []
    (signed / "README.md").write_text("another card, which nobody signed")
    assert signature_problems(signed, keys[1]) == []


def test_the_commands_of_the_standard_agree(signed: Path, keys: tuple[Path, Path]) -> None:
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(signed), "--ignore_unsigned_files"]
    options = ["--signature", str(signed / SIGNATURE), "--public_key", str(keys[1])]
    told = subprocess.run([*command, *options], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr


def test_another_key_or_another_byte_in_any_file_does_not_hold(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    _, other = written(tmp_path, "other", ec.generate_private_key(ec.SECP256R1()))
    (why,) = signature_problems(signed, other)
    assert why.startswith("the signature does not hold: ")
    for name in ("model.onnx", MANIFEST, "report.json", SIGNATURE):
        before = (signed / name).read_bytes()
        (signed / name).write_bytes(before[:-3] + bytes([before[-3] ^ 1]) + before[-2:])
        assert signature_problems(signed, keys[1]), name
        (signed / name).write_bytes(before)
    assert signature_problems(signed, keys[1]) == []


def test_without_a_signature_it_is_said(artifact: Path, keys: tuple[Path, Path]) -> None:
    assert signature_problems(artifact, keys[1]) == [f"it is not signed: it holds no {SIGNATURE}"]


def test_a_tar_and_a_layout_carry_it(artifact: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    tar = package(artifact, "tar", out=tmp_path / "a.tar", sign=keys[0]).out
    with tarfile.open(tar) as opened:
        opened.extractall(tmp_path / "unpacked", filter="data")
    (folder,) = (tmp_path / "unpacked").iterdir()
    assert signature_problems(folder, keys[1]) == []
    layout = package(artifact, "oci", out=tmp_path / "layout", sign=keys[0]).out
    assert SIGNATURE.encode() in b"".join(blob.read_bytes() for blob in (layout / "blobs" / "sha256").iterdir())


def test_keys_that_are_none_are_one_line(artifact: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    rsa_private, rsa_public = written(tmp_path, "rsa", rsa.generate_private_key(65537, 2048))
    (tmp_path / "text").write_text("no key")
    for key in (tmp_path / "none", tmp_path / "text", rsa_private, public, tmp_path):
        with pytest.raises(UserError, match=r"^--sign .*expected a private key in PEM"):
            package(artifact, "hf", out=tmp_path / "out", sign=key)
        assert not (tmp_path / "out").exists()
    for key in (tmp_path / "none", tmp_path / "text", rsa_public, private, tmp_path):
        with pytest.raises(UserError, match=r"^--key .*expected a public key in PEM"):
            signature_problems(artifact, key)
    with pytest.raises(UserError, match=r"^--sign is not for --format triton"):
        package(artifact, "triton", out=tmp_path / "out", sign=private)
