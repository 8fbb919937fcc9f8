"""The advised settings as YAML to paste into a settings file. Secrets are not in it: variables stand for them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from holdfast.config import ServerSettings
from holdfast.doctor.advice import Advice

_PLAIN: Final = re.compile(r"(?!(?:true|false|null|yes|no|on|off|y|n|~)$)[A-Za-z_./@][A-Za-z0-9_./@+-]*", re.IGNORECASE)
_UNPRINTABLE: Final = re.compile(r"[\x7f-\xa0\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_NAMES_VARIABLE: Final = re.compile(r"(?:Bearer |Basic |Token )?\$\{[A-Za-z_][A-Za-z0-9_]*\}")
"""A header's value that holds no secret: a variable stands for it already."""
_URL: Final = re.compile(r"https?://[A-Za-z0-9_.:/@%+~\[\]-]*[A-Za-z0-9_/]")


def paste(server: ServerSettings, advice: Sequence[Advice], written: Mapping[str, str], *, moved_to: str = "") -> str:
    """The section of `server`. `written` are headers as they were typed, which may name variables."""
    lines = ["servers:", f"  {_text(server.name)}:"]
    if server.url is not None:
        lines.append(f"    url: {_url(server.url, server.name, moved_to)}")
    else:
        words = ", ".join(_text(word, is_flow=True) for word in server.command or ())
        lines.append(f"    command: [{words}]")
    if server.cwd is not None:
        lines.append(f"    cwd: {_text(server.cwd)}")
    if server.headers:
        lines.append("    headers:")
        lines += [f"      {name}: {_header(name, server.name, written)}" for name in server.headers]
    if server.env:
        lines.append("    env:")
        lines += [f'      {name}: "${{{name}}}"' for name in server.env]
    lines += [f"    {one.setting}: {one.value}" for one in advice]
    return "\n".join(lines) + "\n"


def variables(server: ServerSettings, written: Mapping[str, str]) -> list[str]:
    """The environment variables that stand for secrets in what `paste` gives, and must be set."""
    unnamed = [header for header in server.headers if not _NAMES_VARIABLE.fullmatch(written.get(header, ""))]
    names = [_variable(server.name, header) for header in unnamed]
    if server.url is not None and urlsplit(server.url).query:
        names.append(_variable(server.name, "query"))
    return [*names, *server.env]


def _url(url: str, name: str, moved_to: str) -> str:
    parts = urlsplit(url)
    path = moved_to.partition("?")[0] if moved_to else parts.path
    plain = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
    if parts.query:
        return _quoted(f"{_escaped(plain)}?${{{_variable(name, 'query')}}}")
    return plain if _URL.fullmatch(plain) else _quoted(_escaped(plain))


def _header(header: str, name: str, written: Mapping[str, str]) -> str:
    typed = written.get(header, "")
    return _quoted(typed if _NAMES_VARIABLE.fullmatch(typed) else f"${{{_variable(name, header)}}}")


def _variable(name: str, what: str) -> str:
    words = re.sub(r"[^A-Za-z0-9]+", "_", f"{name}_{what}").upper().strip("_")
    return f"_{words}" if words[:1].isdigit() else words


def _text(text: str, *, is_flow: bool = False) -> str:
    """A text as YAML: plain where that is safe, else as JSON, which YAML reads."""
    is_option = is_flow and re.fullmatch(r"--?[A-Za-z][A-Za-z0-9-]*", text) is not None
    is_plain = is_option or (_PLAIN.fullmatch(text) is not None and not text.startswith("@"))
    return text if is_plain else _quoted(_escaped(text))


def _quoted(text: str) -> str:
    """In double quotes, whose escapes YAML and JSON share, but for characters beyond 16 bits."""
    return _UNPRINTABLE.sub(lambda found: f"\\U{ord(found[0]):08x}", json.dumps(text, ensure_ascii=False))


def _escaped(text: str) -> str:
    return text.replace("${", "$${")
