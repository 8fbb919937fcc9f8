"""The report for machines. Its shape is promised in docs/doctor.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from holdfast.doctor.advice import Advice
from holdfast.doctor.findings import Findings
from holdfast.doctor.words import rows


def report(name: str, findings: Findings, advice: Sequence[Advice], remarks: Sequence[str], yaml: str) -> bytes:
    """One JSON object: findings as values and as sentences, the advice, and the settings to paste."""
    whole: dict[str, Any] = {
        "server": name,
        "usable": not findings.problem,
        "findings": msgspec.to_builtins(findings),
        "rows": [
            {"group": row.group, "subject": row.subject, "mark": row.mark.name.lower(), "says": row.says}
            for row in rows(findings)
        ],
        "advice": [{"setting": one.setting, "value": _value(one), "reason": one.reason} for one in advice],
        "remarks": list(remarks),
        "settings": yaml,
    }
    return msgspec.json.format(msgspec.json.encode(whole), indent=2)


def _value(advice: Advice) -> str | int | bool:
    return advice.value == "true" if advice.value in {"true", "false"} else advice.value
