"""Measurements of one build: a JSON document first, text made from it."""

from __future__ import annotations

from fimaq_deploy.report.environment import describe_environment
from fimaq_deploy.report.markdown import to_markdown
from fimaq_deploy.report.schema import (
    SCHEMA,
    Accuracy,
    Block,
    Comparison,
    Data,
    Environment,
    Latency,
    Model,
    Report,
    Row,
    Step,
    TargetStatus,
)

__all__ = [
    "SCHEMA",
    "Accuracy",
    "Block",
    "Comparison",
    "Data",
    "Environment",
    "Latency",
    "Model",
    "Report",
    "Row",
    "Step",
    "TargetStatus",
    "describe_environment",
    "to_markdown",
]
