"""A short quotation of what a server answered instead of MCP, fit for one sentence."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterable, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from holdfast.wire.headers import JSON, media_type

QUOTED_BYTES: Final = 4096
"""Of a body that is only quoted; what is behind them is not looked at."""

MIN_SECRET_CHARS: Final = 8
"""A shorter value is likely to be a word that means nothing, and would garble the quotation."""

_QUOTED_CHARS: Final = 80
_CODE: Final = re.compile(r"<(script|style)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_HEAD: Final = re.compile(r"<head\b.*?(?:</head\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_TAG: Final = re.compile(r"<[a-z/!?][^<>]*(?:>|\Z)", re.IGNORECASE)


def is_readable(headers: Mapping[str, str]) -> bool:
    """Whether a body with these headers is a text that is not compressed."""
    media = media_type(headers.get("content-type"))
    is_text = not media or media.startswith("text/") or media == JSON or media.endswith(("+json", "+xml", "/xml"))
    return is_text and headers.get("content-encoding", "identity").lower() == "identity"


def quotation(body: bytes, secrets: Collection[str]) -> str:
    """The first words of `body`: no tags, no control characters, and `***` for each of `secrets`."""
    text = body[:QUOTED_BYTES].decode(errors="replace")
    if len(body) > QUOTED_BYTES:
        text = text[: max(map(text.rfind, " \n>")) + 1]  # half a word may be half a secret
    text = _CODE.sub(" ", text)
    return (_plain(_HEAD.sub(" ", text), secrets) or _plain(text, secrets))[:_QUOTED_CHARS].rstrip()


def secrets_in(target: str, configured: Iterable[str] = ()) -> frozenset[str]:
    """What a server may repeat of what it was sent, and people must not read: headers and the query, in parts too."""
    query = urlsplit(target).query
    found = {query, *(value for _, value in parse_qsl(query))}
    for value in configured:
        found |= {value.strip(), *value.split()}
    return frozenset(text for text in found if len(text) >= MIN_SECRET_CHARS)


def phrase(status: int) -> str:
    """The words that belong to an HTTP status; empty for an unknown one."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _plain(text: str, secrets: Collection[str]) -> str:
    text = _TAG.sub(" ", html.unescape(_TAG.sub(" ", text)))
    text = "".join(char for char in text if char.isprintable() or char.isspace())
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return " ".join(text.split())
