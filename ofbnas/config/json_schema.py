"""JSON Schema of a study file, by which an editor completes and checks it."""

from __future__ import annotations

from typing import Any

from ofbnas.config.presets import REFERENCE
from ofbnas.config.study import StudyConfig

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NUMBER = {"type": "number", "minimum": 0, "maximum": 1}
OF_SECTION = {"search": "SearchConfig", "finetune": "FinetuneConfig"}


def study_schema() -> dict[str, Any]:
    """The JSON Schema of a study file.

    pydantic knows the fields, their kinds and their ranges. What validators accept in addition is
    added here: a preset, which supplies what is not given, and a plain number for a share.
    """
    schema = StudyConfig.model_json_schema()
    sections = schema["$defs"]
    for name, values in REFERENCE.items():
        section = sections[OF_SECTION[name]]
        preset = {"enum": ["reference"], "description": "Start from the published code's values."}
        section["properties"]["preset"] = preset
        required = section.pop("required", [])
        supplied = [field for field in required if field in values]
        section["required"] = [field for field in required if field not in supplied]
        if supplied:
            section["anyOf"] = [{"required": ["preset"]}, {"required": supplied}]
    span = sections["Span"]
    sections["Span"] = {"description": span.pop("description"), "anyOf": [NUMBER, span]}
    return {"$schema": DIALECT, **schema, "title": "Study of ofbnas"}
