"""One of the servers behind `/mcp`: its names outside, and which resources are its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from msgspec import Raw

from holdfast.servers.gate import name_of
from holdfast.servers.names import Names, fits, mark_of, qualified, scheme_of, unqualified
from holdfast.servers.server import Server
from holdfast.wire import jsonrpc
from holdfast.wire.tasks import tool_without_support

_PAGES_KEPT: Final = 16
MAX_URIS: Final = 10_000
"""Resources of one server whose owner is remembered; the oldest are forgotten."""
MAX_TEMPLATES: Final = 1000
_TEMPLATES: Final = "resources/templates/list"


class Member:
    """What is remembered of a server is only where its names lead, which is the same for every caller."""

    def __init__(self, server: Server, separator: str) -> None:
        self.server = server
        self._settings = server.settings
        self.prefix = server.settings.public_prefix
        self.start = self.prefix + separator
        """What the names of its tools and prompts begin with."""
        self.tools = Names(self.prefix, separator, server.settings.tools.aliases)
        self.prompts = Names(self.prefix, separator, {})
        self._pages: deque[tuple[Raw, list[tuple[str, Raw]]]] = deque(maxlen=_PAGES_KEPT)
        """Pages that were translated lately: the catalogue answers with the same ones."""
        self._uris: dict[str, None] = {}
        self._templates: dict[str, None] = {}
        self._schemes: dict[str, None] = {}

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
                public = names.listed(own)
                fields = {**jsonrpc.decode_fields(tool_without_support(item)), "name": Raw(jsonrpc.encode(public))}
                items.append((public, Raw(jsonrpc.encode(fields))))
        if self._settings.has_common_lists:
            self._pages.append((page, items))
        return items

    def learn(self, method: str, pages: Iterable[Raw]) -> list[tuple[str, Raw]]:
        """The resources or templates of a list by their own URIs; whose they are is known from now on."""
        field, name, known, limit = (
            ("resourceTemplates", "uriTemplate", self._templates, MAX_TEMPLATES)
            if method == _TEMPLATES
            else ("resources", "uri", self._uris, MAX_URIS)
        )
        items: list[tuple[str, Raw]] = []
        for page in pages:
            for item in jsonrpc.decode_items(jsonrpc.decode_fields(page).get(field, b"[]")):
                uri = jsonrpc.decode_value(jsonrpc.decode_fields(item).get(name, b"null"))
                if isinstance(uri, str):
                    _remember(known, uri, limit)
                    _remember(self._schemes, scheme_of(uri), MAX_TEMPLATES)
                    items.append((uri, item))
        return items

    def located(
        self, method: str, items: Iterable[tuple[str, Raw]], members: Collection[Member]
    ) -> Iterator[tuple[str, Raw]]:
        """What `learn` gave, by the URIs by which a client of `members` reaches it."""
        name = "uriTemplate" if method == _TEMPLATES else "uri"
        for uri, item in items:
            if self._has_unmarked(uri, members):
                yield uri, item
            else:
                public = qualified(self.prefix, uri)
                yield public, Raw(jsonrpc.encode({**jsonrpc.decode_fields(item), name: Raw(jsonrpc.encode(public))}))

    def _has_unmarked(self, uri: str, members: Collection[Member]) -> bool:
        """Whether `uri` as it is leads here: no server before this one lists it, and it looks like no mark."""
        if "+" in uri and _marked(uri, members) is not None:
            return False
        return next((member for member in members if member.lists(uri)), self) is self

    def lists(self, uri: str) -> bool:
        """Whether it listed this resource, or this very template."""
        return uri in self._uris or uri in self._templates

    def matches(self, uri: str) -> bool:
        """Whether a template of it fits."""
        return any(fits(template, uri) for template in self._templates)

    def has_scheme(self, uri: str) -> bool:
        """Whether it listed something of the same scheme."""
        return scheme_of(uri) in self._schemes


def owner_of(uri: str, members: Collection[Member]) -> tuple[Member, str] | None:
    """Whose resource `uri` is, by what servers have listed, and the server's own URI for it."""
    marked = _marked(uri, members)
    if marked is not None:
        return marked
    for is_its in (Member.lists, Member.matches):
        for member in members:
            if is_its(member, uri):
                return member, uri
    likely = [m for m in members if m.has_scheme(uri)] or [m for m in members if m.offers_resources]
    return (likely[0], uri) if len(likely) == 1 else None


def _marked(uri: str, members: Iterable[Member]) -> tuple[Member, str] | None:
    """The server that a URI is marked with; where case alone tells two apart, the one that is spelt so."""
    found = [(member, own) for member in members if (own := unqualified(member.prefix, uri)) is not None]
    exact = [each for each in found if uri.startswith(mark_of(each[0].prefix))]
    return next(iter(exact or found), None)


def _remember(known: dict[str, None], what: str, limit: int) -> None:
    known.pop(what, None)
    known[what] = None
    if len(known) > limit:
        del known[next(iter(known))]
