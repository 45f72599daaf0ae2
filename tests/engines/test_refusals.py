"""Messages as TensorRT's users have reported them, and the flags of TensorRT-RTX."""

from __future__ import annotations

import pytest

from fimaq_deploy.engines.refusals import Here, built_with, from_flags, from_log

HERE = Here("tensorrt", "10.13.0.35", "NVIDIA H100", (9, 0))


@pytest.mark.parametrize(
    ("log", "told"),
    [
        (
            "[E] deserializeCudaEngine: Error Code 6: API Usage Error (The engine plan file is generated on an "
            "incompatible device, expecting compute 9.0 got compute 8.6, please rebuild.)",
            "it was compiled for compute capability 8.6, expected 9.0",
        ),
        (
            "[E] 6: The engine plan file is not compatible with this version of TensorRT, expecting library version "
            "10.13.0.35 got 10.8.0.43, please rebuild.",
            "it was built by TensorRT 10.8.0.43, expected 10.13.0.35",
        ),
        (
            "[E] deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion stdVersionRead == "
            "kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: 237, Serialized Engine "
            "Version: 239)",
            "it was built by another version than tensorrt 10.13.0.35",
        ),
        (
            "[E] deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion plan->header.pad "
            "== expectedPlatformTag failed.Platform specific tag mismatch detected. TensorRT plan files are only "
            "supported on the target runtime platform they were created on.)",
            "it was built on another operating system or processor",
        ),
        ("[E] 1: Serialization (magicTagRead == kMAGIC_TAG failed.Magic tag does not match)", "it is damaged, or no "),
    ],
)
def test_what_tensorrt_says_becomes_what_the_file_is_for_and_what_is_here(log: str, told: str) -> None:
    assert (from_log(log, HERE) or "").startswith(told)


def test_what_it_has_not_said_before_is_left_to_its_own_words() -> None:
    assert from_log("[E] Error Code 2: OutOfMemory", HERE) is None


def test_the_flags_of_a_header() -> None:
    rtx = pytest.importorskip("tensorrt_rtx")
    members = rtx.EngineInvalidityDiagnostics.__members__
    here = Here("tensorrt-rtx", "1.7.1.116", "NVIDIA GeForce RTX 4090", (8, 9))
    told = {name: from_flags(int(value), members, here) for name, value in members.items()}
    assert None not in told.values(), "every flag of the installed version has words"
    assert len(set(told.values())) == len(told)
    assert told["UNSUPPORTED_CC"] == "it was not compiled for NVIDIA GeForce RTX 4090 (8.9)"
    assert told["VERSION_MISMATCH"] == "it was built by another version than tensorrt-rtx 1.7.1.116"
    both = int(members["VERSION_MISMATCH"]) | int(members["UNSUPPORTED_CC"])
    assert from_flags(both, members, here) == told["VERSION_MISMATCH"]
    assert from_flags(0, members, here) is None


def test_the_version_that_the_builds_manifest_names() -> None:
    assert built_with({"tensorrt": "10.8.0.43"}, HERE) == "it was built by tensorrt 10.8.0.43, expected 10.13.0.35"
    assert built_with({"tensorrt": "10.13.0.35"}, HERE) is None
    assert built_with({}, HERE) is None


def test_a_gpu_may_be_unknown() -> None:
    assert (Here("tensorrt", "11.0").device, HERE.device) == ("the GPU here", "NVIDIA H100 (9.0)")
