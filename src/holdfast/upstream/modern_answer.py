"""What a server of 2026-07-28 says, as clients of the handshake era understand it: pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import Raw

from holdfast.call import Fields, Json
from holdfast.upstream.transport import Hello
from holdfast.wire import jsonrpc
from holdfast.wire.mirrored import Annotations, annotations_of
from holdfast.wire.revisions import LATEST, MODERN

SERVER_INFO: Final = "io.modelcontextprotocol/serverInfo"

LIST_KINDS: Final[Mapping[str, str]] = {
    "toolsListChanged": "tools",
    "promptsListChanged": "prompts",
    "resourcesListChanged": "resources",
}
"""What a `subscriptions/listen` may ask for, and the capability whose `listChanged` it serves."""

_NEW: Final = ("resultType", "ttlMs", "cacheScope")
"""What results have since 2026-07-28."""


def versions_of(discovery: Raw) -> list[str] | None:
    """The revisions that the answer to `server/discover` names; None where it is no such answer."""
    versions = jsonrpc.decode_value(jsonrpc.decode_fields(discovery).get("supportedVersions", b"null"))
    if not isinstance(versions, list):
        return None
    return [version for version in versions if isinstance(version, str)]


def list_kinds(discovery: Raw) -> frozenset[str]:
    """The kinds of `subscriptions/listen` whose lists the server says it announces."""
    capabilities = _capabilities(discovery)
    return frozenset(kind for kind, name in LIST_KINDS.items() if _offers(capabilities, name, "listChanged"))


def can_subscribe(discovery: Raw) -> bool:
    """Whether the server says that resources can be subscribed to."""
    return _offers(_capabilities(discovery), "resources", "subscribe")


def hello_of(discovery: Raw, announced: Iterable[str], *, has_updates: bool) -> Hello:
    """A discovery as an answer to `initialize`, with only those changes promised that will be announced."""
    fields = jsonrpc.decode_fields(discovery)
    capabilities = _capabilities(discovery)
    for kind, name in LIST_KINDS.items():
        offered = capabilities.get(name)
        if isinstance(offered, dict):
            kept = {key: value for key, value in offered.items() if key not in {"listChanged", "subscribe"}}
            if kind in announced:
                kept["listChanged"] = True
            if name == "resources" and has_updates:
                kept["subscribe"] = True
            capabilities[name] = kept
    about = jsonrpc.decode_fields(fields.get("_meta", b"{}"))
    info = jsonrpc.decode_value(about.get(SERVER_INFO, b"null"))
    result: dict[str, Any] = {
        "protocolVersion": LATEST,
        "capabilities": capabilities,
        "serverInfo": info if isinstance(info, dict) else {"name": "", "version": ""},
    }
    if "instructions" in fields:
        result["instructions"] = fields["instructions"]
    encoded = {name: Raw(jsonrpc.encode(value)) for name, value in capabilities.items()}
    return Hello(Raw(jsonrpc.encode(result)), MODERN, encoded, is_stateless=True)


class MirroredArguments:
    """Which arguments of a server's tools are repeated in headers, as its lists said last; shared by its sessions."""

    def __init__(self) -> None:
        self._by_tool: dict[str, Annotations] = {}

    def of(self, tool: str | None) -> Annotations:
        """The annotated arguments of a tool; empty where it has none, or was not listed yet."""
        return {} if tool is None else self._by_tool.get(tool, {})

    def note(self, tool: str, annotations: Annotations) -> None:
        """Take what a list says of a tool."""
        if annotations:
            self._by_tool[tool] = annotations
        else:
            self._by_tool.pop(tool, None)


def understood(method: str, raw: Raw, fields: Fields, mirrored: MirroredArguments) -> Raw:
    """A complete result without what is new in it; what a list says of tools is noted."""
    changed = dict(fields)
    for name in _NEW:
        changed.pop(name, None)
    if method == "tools/call" and "structuredContent" in changed:
        _keep_as_text(changed)
    elif method == "tools/list" and "tools" in changed:
        changed["tools"] = _sound_tools(changed["tools"], mirrored)
    is_same = len(changed) == len(fields) and all(changed.get(name) is value for name, value in fields.items())
    return raw if is_same else Raw(jsonrpc.encode(changed))


def _keep_as_text(fields: Fields) -> None:
    """Structured content of the handshake era is an object: anything else goes on as text alone."""
    structured = fields["structuredContent"]
    if bytes(structured).lstrip()[:1] == b"{":
        return
    del fields["structuredContent"]
    blocks = jsonrpc.decode_items(fields.get("content", b"[]"))
    if not any(_says(block, jsonrpc.decode_value(structured)) for block in blocks):
        text = jsonrpc.encode({"type": "text", "text": bytes(structured).decode()})
        fields["content"] = Raw(jsonrpc.array([*map(bytes, blocks), text]))


def _says(block: Raw, value: Json) -> bool:
    text = jsonrpc.decode_value(jsonrpc.decode_fields(block).get("text", b"null"))
    return isinstance(text, str) and (text == value or jsonrpc.decode_value(text.encode()) == value)


def _sound_tools(tools: Raw, mirrored: MirroredArguments) -> Raw:
    """The tools without those whose headers cannot be made, and without output schemas of no object."""
    items = jsonrpc.decode_items(tools)
    sound: list[Raw] = []
    for item in items:
        fields = jsonrpc.decode_fields(item)
        name = jsonrpc.decode_value(fields.get("name", b"null"))
        annotations = annotations_of(jsonrpc.decode_value(fields.get("inputSchema", b"{}")))
        if annotations is None:
            continue
        if isinstance(name, str):
            mirrored.note(name, annotations)
        sound.append(_with_object_output(item, fields))
    return Raw(jsonrpc.array(map(bytes, sound)))


def _with_object_output(item: Raw, fields: Fields) -> Raw:
    schema = jsonrpc.decode_value(fields.get("outputSchema", b"null"))
    if "outputSchema" not in fields or (isinstance(schema, dict) and schema.get("type") == "object"):
        return item
    return Raw(jsonrpc.encode({name: value for name, value in fields.items() if name != "outputSchema"}))


def _capabilities(discovery: Raw) -> dict[str, Json]:
    capabilities = jsonrpc.decode_value(jsonrpc.decode_fields(discovery).get("capabilities", b"{}"))
    return capabilities if isinstance(capabilities, dict) else {}


def _offers(capabilities: Mapping[str, Json], name: str, what: str) -> bool:
    offered = capabilities.get(name)
    return isinstance(offered, dict) and offered.get(what) is True
