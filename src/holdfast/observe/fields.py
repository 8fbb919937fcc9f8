"""Events and moments in JSON's terms, the same in the log and in the API."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final, get_args

from msgspec.structs import replace

from holdfast import events

LONGEST: Final = 1000
"""Characters of a text that are shown: clients choose methods, and servers reasons, of megabytes."""


def bounded(event: events.Event) -> events.Event:
    """`event` with no text longer than `LONGEST`."""
    _, names = _SHAPES[type(event)]
    texts = {name: value for name in names if isinstance(value := getattr(event, name), str)}
    shorter: dict[str, Any] = {name: clipped(text) for name, text in texts.items() if len(text) > LONGEST}
    return replace(event, **shorter) if shorter else event


def clipped(text: str) -> str:
    """`text`, or its first `LONGEST` characters."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def fields_of(event: events.Event) -> dict[str, object]:
    """The fields of an event, after `event` with its kind in snake case; what is empty is left out.

    Seconds are told to the microsecond.
    """
    kind, names = _SHAPES[type(event)]
    found: dict[str, object] = {"event": kind}
    for name in names:
        if (value := getattr(event, name)) not in ("", ()):
            found[name] = round(value, 6) if isinstance(value, float) else value
    return found


def rfc_3339(at: float) -> str:
    """A moment since the epoch, in UTC, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


_SHAPES: Final[dict[type[events.Event], tuple[str, tuple[str, ...]]]] = {
    kind: (re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower(), kind.__struct_fields__)
    for kind in get_args(events.Event)
}
"""The name of each kind of event, and those of its fields."""
