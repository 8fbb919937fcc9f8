"""The log for programs: one JSON object a line."""

from __future__ import annotations

import json
import logging

from holdfast.observe.fields import fields_of, rfc_3339
from holdfast.observe.log import one_line


class JsonFormatter(logging.Formatter):
    """A record as `time`, `level`, `logger` and `message`, then the fields of its event, and its `exception`.

    Everything beyond ASCII is escaped, so that no server can move the cursor of whoever reads it.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": rfc_3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": one_line(record.getMessage()),
        }
        event = getattr(record, "event", None)
        if event is not None:
            line |= fields_of(event)
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
