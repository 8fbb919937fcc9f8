"""`holdfast schema`: the JSON Schema of settings files, for editors."""

from __future__ import annotations

import json

from holdfast.config.schema import json_schema


def schema() -> str:
    """The JSON Schema of a YAML settings file, as text."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False)
