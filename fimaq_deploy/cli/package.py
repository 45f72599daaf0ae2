"""`fimaq-deploy package`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fimaq_deploy.cli.console import stdout
from fimaq_deploy.cli.options import JsonOption, write_document


def package(
    artifact: Annotated[Path, typer.Argument(metavar="BUILD", help="The folder of a build.")],
    format: Annotated[str, typer.Option(help="triton, tar, hf, oci or whole.")],
    out: Annotated[Path | None, typer.Option(help="Where to; default: BUILD.FORMAT.")] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Of triton: what the server runs, such as onnxruntime-cpu, openvino-cpu or tensorrt."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Of triton: the most images at once.")] = 32,
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Of triton: the file of --embed-preprocessing, which takes uint8 pixels.")
    ] = False,
    base_model: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Of hf: what the hub calls the original.")
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(metavar="KEY", help="A private key in PEM that signs the build; of tar, hf, oci."),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Check a build and write it as a Triton repository, a tar, a hub's folder, an OCI layout or one ONNX file.

    Needs no torch. The last is of a detector or a segmenter, whose build holds an encoder and a head.
    """
    from fimaq_deploy.packaging.packages import package as write_package

    done = write_package(
        artifact, format, out=out, target=target, batch=batch, base_model=base_model, pixels=pixels, sign=sign
    )
    if not write_document(json, done.document()):
        for note in done.notes:
            stdout.print(note, soft_wrap=True)
        stdout.print(f"Wrote {done.out}", soft_wrap=True)
