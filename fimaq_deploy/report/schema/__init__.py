"""What `report.json` holds, a subject a file."""

from fimaq_deploy.report.schema.engines import Audit, AuditBlock, Parity, StageParity, TargetStatus
from fimaq_deploy.report.schema.inputs import Data, Environment, Model
from fimaq_deploy.report.schema.learning import (
    Block,
    GridUse,
    Mix,
    MixBuilt,
    MixPoint,
    MixProbe,
    MixTime,
    RewriteChoice,
    RewriteTrial,
    Sensitivity,
)
from fimaq_deploy.report.schema.report import SCHEMA, Report, Step, json_schema
from fimaq_deploy.report.schema.rows import (
    Accuracy,
    Answer,
    Comparison,
    Figure,
    Latency,
    Meaning,
    Object,
    Output,
    Picture,
    Row,
)

__all__ = [
    "SCHEMA",
    "Accuracy",
    "Answer",
    "Audit",
    "AuditBlock",
    "Block",
    "Comparison",
    "Data",
    "Environment",
    "Figure",
    "GridUse",
    "Latency",
    "Meaning",
    "Mix",
    "MixBuilt",
    "MixPoint",
    "MixProbe",
    "MixTime",
    "Model",
    "Object",
    "Output",
    "Parity",
    "Picture",
    "Report",
    "RewriteChoice",
    "RewriteTrial",
    "Row",
    "Sensitivity",
    "StageParity",
    "Step",
    "TargetStatus",
    "json_schema",
]
