"""A short quotation of what a server answered instead of MCP, fit for one sentence."""

from __future__ import annotations

import html
import re
from collections.abc import Collection
from typing import Final

from holdfast.wire.headers import JSON

QUOTED_BYTES: Final = 4096
"""Of a body that is only quoted; what is behind them is not looked at."""

MIN_SECRET_CHARS: Final = 8
"""A shorter value is likely to be a word that means nothing, and would garble the quotation."""

_QUOTED_CHARS: Final = 80
_CODE: Final = re.compile(r"<(script|style)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_HEAD: Final = re.compile(r"<head\b.*?(?:</head\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_TAG: Final = re.compile(r"<[a-z/!?][^<>]*(?:>|\Z)", re.IGNORECASE)


def is_text(media: str) -> bool:
    """Whether a body of this type, or of none, is something to read."""
    return not media or media.startswith("text/") or media == JSON or media.endswith(("+json", "+xml", "/xml"))


def quotation(body: bytes, secrets: Collection[str]) -> str:
    """The first words of `body`: no tags, no control characters, and `***` for each of `secrets`."""
    text = body[:QUOTED_BYTES].decode(errors="replace")
    if len(body) > QUOTED_BYTES:
        text = text[: max(map(text.rfind, " \n>")) + 1]  # half a word may be half a secret
    text = _CODE.sub(" ", text)
    return (_plain(_HEAD.sub(" ", text), secrets) or _plain(text, secrets))[:_QUOTED_CHARS].rstrip()


def _plain(text: str, secrets: Collection[str]) -> str:
    text = _TAG.sub(" ", html.unescape(_TAG.sub(" ", text)))
    text = "".join(char for char in text if char.isprintable() or char.isspace())
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return " ".join(text.split())
