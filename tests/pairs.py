"""Which client gets what from which server: the table that is run, and printed in docs/eras.md.

A cell is one feature between one kind of client and one kind of server. What is expected of it
follows from its row, and from the revisions of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

from holdfast.wire.revisions import LATEST, MODERN


class Outcome(StrEnum):
    """How a feature fares between a client and a server."""

    YES = "yes"
    TRANSLATED = "translated"
    PARKED = "parked"
    TOLD = "told"
    DECLINED = "declined"
    NONE = "none"


MEANINGS: Final = {
    Outcome.YES: "works, and both sides say it in the same way",
    Outcome.TRANSLATED: "works, and the two sides say it in different ways",
    Outcome.PARKED: "works: the question ends the client's request, and the call waits until the client comes back",
    Outcome.TOLD: "the client gets the server's error as it is, and may read it",
    Outcome.DECLINED: "nobody is asked, and the server is told so",
    Outcome.NONE: "there is no way",
}


class Feature(Enum):
    """What is tried, as the table calls it."""

    TOOLS = "tools: list, call"
    MEMORY = "state between two calls"
    RESOURCES = "resources: lists, read"
    PROMPTS = "prompts: list, get"
    COMPLETION = "completion"
    PAGINATION = "lists of several pages"
    PROGRESS = "progress"
    LOG = "log messages, by level"
    CANCEL = "cancellation"
    ELICITATION_FORM = "elicitation by form"
    ELICITATION_URL = "elicitation by URL"
    ELICITATION_COMPLETE = "… `elicitation/complete`"
    URL_NEEDED = "… error -32042"
    SAMPLING = "sampling"
    SAMPLING_TOOLS = "sampling with tools"
    ROOTS = "roots"
    SUBSCRIBE = "resource subscriptions"
    LIST_CHANGED = "changes of lists"


class Group(StrEnum):
    """Clients that fare alike."""

    SESSION = "with a session"
    SESSIONLESS = "without a session"
    MODERN = MODERN


@dataclass(frozen=True)
class ClientKind:
    """A kind of client. `revision` is empty where it says none."""

    revision: str
    transport: str
    is_merged: bool = False
    """It reaches the server as one of all, not by a path of its own."""

    @property
    def group(self) -> Group:
        if not self.revision:
            return Group.SESSIONLESS
        return Group.MODERN if self.revision == MODERN else Group.SESSION

    @property
    def spoken(self) -> str:
        return self.revision

    def __str__(self) -> str:
        what = f"{self.revision} over {self.transport}" if self.revision else "no session"
        return f"{what}, merged" if self.is_merged else what


@dataclass(frozen=True)
class ServerKind:
    """A kind of server."""

    name: str
    """In the settings of the gateway."""
    revision: str
    transport: str
    speaks_both: bool = False
    """2026-07-28 as well. Its clients have sessions, or name their chats, so `revision` is what counts."""

    @property
    def is_modern(self) -> bool:
        return self.revision == MODERN

    @property
    def spoken(self) -> str:
        return f"{self.revision} and {MODERN}" if self.speaks_both else self.revision

    def __str__(self) -> str:
        return f"{self.spoken} over {self.transport}"


CLIENTS: Final = (
    ClientKind("2024-11-05", "HTTP+SSE"),
    ClientKind(LATEST, "HTTP+SSE"),
    *(ClientKind(revision, "HTTP") for revision in ("2024-11-05", "2025-03-26", "2025-06-18", LATEST)),
    ClientKind(LATEST, "stdio"),
    ClientKind("", "HTTP"),
    ClientKind(MODERN, "HTTP"),
    ClientKind(MODERN, "stdio"),
    ClientKind("2024-11-05", "HTTP+SSE", is_merged=True),
    ClientKind(LATEST, "HTTP", is_merged=True),
    ClientKind(LATEST, "stdio", is_merged=True),
    ClientKind("", "HTTP", is_merged=True),
    ClientKind(MODERN, "HTTP", is_merged=True),
    ClientKind(MODERN, "stdio", is_merged=True),
)

SERVERS: Final = (
    ServerKind("old", "2024-11-05", "HTTP+SSE"),
    ServerKind("sse", LATEST, "HTTP+SSE"),
    ServerKind("spring", "2025-03-26", "HTTP"),
    ServerKind("summer", "2025-06-18", "HTTP"),
    ServerKind("autumn", LATEST, "HTTP"),
    ServerKind("pipe", LATEST, "stdio"),
    ServerKind("modern", MODERN, "HTTP"),
    ServerKind("process", MODERN, "stdio"),
    ServerKind("both", LATEST, "HTTP", speaks_both=True),
)


@dataclass(frozen=True)
class Row:
    """What is expected of a feature: for each group of clients, with a server of each era."""

    since: str
    """The revision that brought it; a side that is older knows nothing of it. Empty where all have it."""
    cells: str
    """In the order of the table; after a colon, the letter of a note."""
    unable: Outcome = Outcome.DECLINED
    """What comes of it where a client with a session is older, and its server is not."""

    def cell(self, group: Group, *, is_modern: bool) -> tuple[Outcome, str]:
        """The outcome for these clients and a server of this era, and the letter of its note."""
        position = list(Group).index(group) * 2 + is_modern
        outcome, _, note = self.cells.split()[position].partition(":")
        return Outcome(outcome), note


ROWS: Final = {
    Feature.TOOLS: Row("", "yes yes yes yes yes yes"),
    Feature.MEMORY: Row("", "yes yes:a yes:b yes:a yes:b yes:a"),
    Feature.RESOURCES: Row("", "yes yes yes yes yes yes"),
    Feature.PROMPTS: Row("", "yes yes yes yes yes yes"),
    Feature.COMPLETION: Row("", "yes yes yes yes yes yes"),
    Feature.PAGINATION: Row("", "yes yes yes yes yes yes"),
    Feature.PROGRESS: Row("", "yes yes yes yes yes yes"),
    Feature.LOG: Row("", "yes translated yes:c yes:c translated yes"),
    Feature.CANCEL: Row("", "yes translated translated yes translated yes"),
    Feature.ELICITATION_FORM: Row("2025-06-18", "yes translated declined:d declined:d parked yes"),
    Feature.ELICITATION_URL: Row("2025-11-25", "yes translated declined:d declined:d parked yes"),
    Feature.ELICITATION_COMPLETE: Row("2025-11-25", "yes translated none:d none:e none:e none:e", unable=Outcome.NONE),
    Feature.URL_NEEDED: Row("2025-11-25", "yes none:f told:h none:f translated none:f", unable=Outcome.TOLD),
    Feature.SAMPLING: Row("", "yes translated declined:d declined:d parked yes"),
    Feature.SAMPLING_TOOLS: Row("2025-11-25", "yes translated declined:d declined:d parked yes"),
    Feature.ROOTS: Row("", "yes translated declined:d declined:d parked yes"),
    Feature.SUBSCRIBE: Row("", "yes translated none:g none:g translated:i yes:i"),
    Feature.LIST_CHANGED: Row("", "yes translated none:g none:g translated yes"),
}

NOTES: Final = {
    "a": "the server keeps it by itself, since it knows no sessions: there is nothing that we could lose",
    "b": "where the request names its chat or a handle, or the scope is `user` or `shared`",
    "c": "from `info` on: there is no way to set a level",
    "d": "it has no way to answer: nothing would say which call an answer belongs to",
    "e": "2026-07-28 has no such notification: coming back with the answers says it",
    "f": "2026-07-28 has no such error: its servers ask for the page, as above",
    "g": "there is no stream on which it could be told",
    "h": "where the request names its chat; else the server may be told that no page can be shown",
    "i": "where the request names its chat, or the scope is `user` or `shared`",
}

UNCHANGED: Final = {
    Feature.TOOLS,
    Feature.MEMORY,
    Feature.RESOURCES,
    Feature.PROMPTS,
    Feature.COMPLETION,
    Feature.PAGINATION,
    Feature.PROGRESS,
}
"""Said in the same way in every revision."""


@dataclass(frozen=True)
class Cell:
    """One thing to try."""

    feature: Feature
    client: ClientKind
    server: ServerKind

    def __str__(self) -> str:
        return f"{self.feature.name.lower()}:{self.client}:{self.server}".replace(" ", "-")

    @property
    def expected(self) -> Outcome:
        """What must come of it."""
        row = ROWS[self.feature]
        outcome, _ = row.cell(self.client.group, is_modern=self.server.is_modern)
        if outcome is Outcome.NONE or self.server.revision < row.since:
            return Outcome.NONE
        if self.client.group is Group.SESSION and self.client.revision < row.since:
            return row.unable
        return outcome

    def judged(self, seen: Outcome) -> Outcome:
        """What its client saw, as the table says it: where it works and is said differently, it was translated."""
        return Outcome.TRANSLATED if seen is Outcome.YES and self._is_said_differently else seen

    @property
    def _is_said_differently(self) -> bool:
        if self.feature in UNCHANGED:
            return False
        if self.client.group is Group.SESSIONLESS:
            # It sets no level; and it cancels as clients of 2026-07-28 do, by closing its request.
            return self.feature is Feature.CANCEL and not self.server.is_modern
        return (self.client.group is Group.MODERN) is not self.server.is_modern


CELLS: Final = tuple(Cell(feature, client, server) for client in CLIENTS for server in SERVERS for feature in Feature)
"""All of them, those of one client and server together."""
