"""Measurements of one build: a JSON document first, a page and text made from it."""

from __future__ import annotations

from fimaq_deploy.report.load import load_report
from fimaq_deploy.report.page.html import to_html
from fimaq_deploy.report.page.markdown import to_markdown
from fimaq_deploy.report.schema import (
    SCHEMA,
    Accuracy,
    Audit,
    AuditBlock,
    Block,
    Comparison,
    Data,
    Environment,
    GridUse,
    Latency,
    Model,
    Parity,
    Report,
    Row,
    Sensitivity,
    StageParity,
    Step,
    TargetStatus,
)

__all__ = [
    "SCHEMA",
    "Accuracy",
    "Audit",
    "AuditBlock",
    "Block",
    "Comparison",
    "Data",
    "Environment",
    "GridUse",
    "Latency",
    "Model",
    "Parity",
    "Report",
    "Row",
    "Sensitivity",
    "StageParity",
    "Step",
    "TargetStatus",
    "load_report",
    "to_html",
    "to_markdown",
]
