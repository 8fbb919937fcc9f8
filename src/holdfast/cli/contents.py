"""What a tool returned, as text for a person or a pipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from holdfast.call import Json
from holdfast.observe.log import one_line, printable

_UNITS: Final = ("bytes", "KB", "MB", "GB")


def describe_result(result: Mapping[str, Json]) -> str:
    """The texts of a tool's result as they are; what is no text as one line that says what it is.

    Structured content is shown where there is no text: servers repeat it in the text otherwise.
    """
    content = result.get("content")
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    parts = [_describe_block(block) for block in blocks]
    if "structuredContent" in result and not any(block.get("type") == "text" for block in blocks):
        parts.append(json.dumps(result["structuredContent"], indent=2, ensure_ascii=False))
    return "\n".join(parts)


def for_terminal(text: str) -> str:
    """`text` without what would move the cursor, line by line."""
    return "\n".join(printable(line.expandtabs()) for line in text.split("\n"))


def _describe_block(block: Mapping[str, Json]) -> str:
    kind, text = block.get("type"), block.get("text")
    if kind == "text" and isinstance(text, str):
        return text
    words: list[Json] = [kind if isinstance(kind, str) else "content of no type"]
    match kind:
        case "image" | "audio":
            words += [block.get("mimeType"), _decoded_size(block.get("data"))]
        case "resource_link":
            size = block.get("size")
            words = ["link", block.get("uri"), block.get("name"), block.get("mimeType")]
            words.append(readable_size(int(size)) if isinstance(size, int | float) else None)
        case "resource":
            resource = block.get("resource")
            held = resource if isinstance(resource, dict) else {}
            text = held.get("text")
            size = readable_size(len(text.encode())) if isinstance(text, str) else _decoded_size(held.get("blob"))
            words += [held.get("uri"), held.get("mimeType"), size]
        case _:
            pass
    return f"[{', '.join(one_line(word) for word in words if isinstance(word, str) and word)}]"


def _decoded_size(encoded: Json) -> str | None:
    """The size of what is encoded in base64."""
    if not isinstance(encoded, str):
        return None
    return readable_size(len(encoded.rstrip("=")) * 3 // 4)


def readable_size(size: float) -> str:
    """A number of bytes as people read it: `1.5 KB`."""
    for unit in _UNITS[:-1]:
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} {_UNITS[-1]}"
