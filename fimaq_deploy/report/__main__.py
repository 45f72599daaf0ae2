"""`python -m fimaq_deploy.report` prints the JSON Schema of report.json."""

from __future__ import annotations

import json

from fimaq_deploy.report.schema import json_schema

print(json.dumps(json_schema(), indent=2))
