"""What a build was made of, and where."""

from __future__ import annotations

from pydantic import Field

from fimaq_deploy.report.schema.values import Count, Part


class Environment(Part):
    """The machine and the software that made the build."""

    platform: str
    cpu: str
    cores: Count
    gpu: str | None = None
    driver: str | None = None
    python: str
    packages: dict[str, str] = Field(description="Distribution name to version, of those that take part.")


class Model(Part):
    name: str
    weights: str = Field(description="'pretrained', 'random' or the path of a checkpoint.")
    input_shape: tuple[int, int, int] = Field(description="Channels, height, width.")
    classes: Count
    parameters: Count


class Data(Part):
    """Where the images came from and how many there were."""

    calibration: str
    calibration_images: Count
    evaluation: str
    evaluation_images: Count
    labelled: bool = Field(description="Whether the evaluation images have classes, so that accuracy means something.")
    bank: str | None = Field(default=None, description="Labelled images that neighbours vote from, or probes are of.")
    images_sha256: str | None = Field(
        default=None, description="Of the evaluation images as the model reads them, and of the bank."
    )
    labels_sha256: str | None = Field(
        default=None, description="Of what they are labelled with: classes, objects or maps; empty where with nothing."
    )
    notes: list[str] = Field(default=[], description="What a reader should know, such as unreadable images left out.")
