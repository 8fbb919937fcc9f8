"""One of the servers behind `/mcp`: its names outside, and which resources are its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from msgspec import Raw

from holdfast.servers.gate import name_of
from holdfast.servers.names import Names, fits, qualified, scheme_of, unqualified
from holdfast.servers.server import Server
from holdfast.wire import jsonrpc

_PAGES_KEPT: Final = 16
MAX_URIS: Final = 10_000
"""Resources of one server whose owner is remembered; the oldest are forgotten."""


class Member:
    """What is remembered of a server is only where its names lead, which is the same for every caller."""

    def __init__(self, server: Server, separator: str) -> None:
        self.server = server
        self._settings = server.settings
        self.prefix = server.settings.public_prefix
        self.tools = Names(self.prefix, separator, server.settings.tools.aliases)
        self.prompts = Names(self.prefix, separator, {})
        self._pages: deque[tuple[Raw, list[tuple[str, Raw]]]] = deque(maxlen=_PAGES_KEPT)
        """Pages that were translated lately: the catalogue answers with the same ones."""
        self._uris: dict[str, None] = {}
        self._templates: dict[str, None] = {}

    def is_of(self, server: Server) -> bool:
        """Whether it still names what `server` is, as it is configured now."""
        return self.server is server and self._settings == server.settings

    @property
    def offers_resources(self) -> bool:
        """Whether it said so."""
        hello = self.server.catalog.hello
        return hello is not None and "resources" in hello.capabilities

    def named(self, method: str, pages: Iterable[Raw]) -> Iterator[tuple[str, Raw]]:
        """The tools or prompts of a list, each with its public name."""
        names = self.tools if method == "tools/list" else self.prompts
        for page in pages:
            yield from self._translated(page, method.partition("/")[0], names)

    def _translated(self, page: Raw, field: str, names: Names) -> list[tuple[str, Raw]]:
        for known, renamed in self._pages:
            if known is page:
                return renamed
        items: list[tuple[str, Raw]] = []
        for item in jsonrpc.decode_items(jsonrpc.decode_fields(page).get(field, b"[]")):
            own = name_of(item)
            if isinstance(own, str):
                public = names.public(own)
                fields = {**jsonrpc.decode_fields(item), "name": Raw(jsonrpc.encode(public))}
                items.append((public, Raw(jsonrpc.encode(fields))))
        self._pages.append((page, items))
        return items

    def located(self, method: str, pages: Iterable[Raw], taken: set[str]) -> Iterator[tuple[str, Raw]]:
        """The resources or templates of a list by their public URIs: marked where another server took one already."""
        is_template = method == "resources/templates/list"
        field, name = ("resourceTemplates", "uriTemplate") if is_template else ("resources", "uri")
        known = self._templates if is_template else self._uris
        for page in pages:
            for item in jsonrpc.decode_items(jsonrpc.decode_fields(page).get(field, b"[]")):
                fields = jsonrpc.decode_fields(item)
                uri = jsonrpc.decode_value(fields.get(name, b"null"))
                if not isinstance(uri, str):
                    continue
                _remember(known, uri)
                if uri not in taken:
                    taken.add(uri)
                    yield uri, item
                else:
                    public = qualified(self.prefix, uri)
                    yield public, Raw(jsonrpc.encode({**fields, name: Raw(jsonrpc.encode(public))}))

    def marked(self, uri: str) -> str | None:
        """The own URI behind one that is marked as this server's."""
        return unqualified(self.prefix, uri)

    def lists(self, uri: str) -> bool:
        """Whether it listed this resource, or this very template."""
        return uri in self._uris or uri in self._templates

    def matches(self, uri: str) -> bool:
        """Whether a template of it fits."""
        return any(fits(template, uri) for template in self._templates)

    def has_scheme(self, uri: str) -> bool:
        """Whether it listed something of the same scheme."""
        scheme = scheme_of(uri)
        return any(scheme_of(other) == scheme for other in (*self._uris, *self._templates))


def owner_of(uri: str, members: Mapping[str, Member]) -> tuple[Member, str] | None:
    """Whose resource `uri` is, by what servers have listed, and the server's own URI for it."""
    for member in members.values():
        own = member.marked(uri)
        if own is not None:
            return member, own
    for is_its in (Member.lists, Member.matches):
        for member in members.values():
            if is_its(member, uri):
                return member, uri
    likely = [m for m in members.values() if m.has_scheme(uri)] or [m for m in members.values() if m.offers_resources]
    return (likely[0], uri) if len(likely) == 1 else None


def _remember(known: dict[str, None], uri: str) -> None:
    known.pop(uri, None)
    known[uri] = None
    if len(known) > MAX_URIS:
        del known[next(iter(known))]
