"""What the downstream side talks to, whether one server stands behind it or all of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol

from msgspec import Raw

from holdfast.call import Call, Caller, Running
from holdfast.catalog.catalog import Introduced
from holdfast.catalog.mirrored import Mirrored
from holdfast.identity.asker import Asker
from holdfast.servers.followed_tasks import FollowedTasks, Follower
from holdfast.session.watch import Watcher


class Conversation(Hashable, Protocol):
    """What one caller's requests belong to: a session, or one with each server.

    Equal for requests that share their sessions; it never opens one before it must.
    """

    @property
    def is_private(self) -> bool:
        """It ends with the request that it was made for."""
        ...

    @property
    def is_shared(self) -> bool:
        """Several principals may be behind it."""
        ...

    @property
    def ends_with_client(self) -> bool:
        """Only a client's own MCP session names it, so it ends with that session."""
        ...

    @property
    def is_in_use(self) -> bool:
        """A session is there for it, open or opening, or a call that waits for one."""
        ...

    @property
    def forgets(self) -> bool:
        """A server behind it keeps what its sessions did, and nothing that was said keeps this one for the next."""
        ...

    def mirrored(self, tool: str) -> Mirrored:
        """The arguments of a tool that its clients repeat in headers, as far as that is known."""
        ...

    def introduce(self, then: Introduced) -> None:
        """Call `then` with what the other side says of itself, at once if that is known."""

    def start(self, call: Call, caller: Caller, watcher: Watcher | None = None) -> Running | None:
        """Answer `call`; None where that has been done already."""
        ...

    def attach(self, watcher: Watcher) -> None:
        """Let `watcher` hear what belongs to no call, now and after every reopening."""

    def detach(self, watcher: Watcher) -> None:
        """The client session behind `watcher` ended, or left this conversation."""

    def offer_roots(self, has_roots: bool) -> None:
        """Somebody who has roots, or none, can be asked for them from now on."""

    def notify(self, method: str, params: Raw | None, watcher: Watcher) -> None:
        """Pass a client's notification on, where a session is open to hear it."""

    def set_level(self, level: str, caller: Caller, watcher: Watcher) -> Running | None:
        """Keep the log level of `watcher`; a session gets the lowest that any of its watchers asked for."""
        ...

    def subscribe(self, call: Call, caller: Caller, watcher: Watcher) -> Running | None:
        """Count `watcher` among those who hear of a resource."""
        ...

    def unsubscribe(self, call: Call, caller: Caller, watcher: Watcher) -> Running | None:
        """Take `watcher` from those who hear of a resource."""
        ...

    def follow(self, task_ids: Sequence[str], follower: Follower) -> FollowedTasks | None:
        """Let `follower` hear of those of these tasks that it began; None where that is none, which it was told."""
        ...


class Service(Protocol):
    """What a path serves."""

    @property
    def name(self) -> str:
        """What errors call it."""
        ...

    @property
    def server_info(self) -> Raw | None:
        """The `serverInfo` of what answers; None where that is not known yet."""
        ...

    @property
    def footing(self) -> Hashable | None:
        """While this is equal, requests that say the same have the same conversation; None where that is not known."""
        ...

    @property
    def is_common(self) -> bool:
        """Whether what is not one caller's own is the same for every client that there is."""
        ...

    @property
    def passes(self) -> frozenset[str]:
        """The headers of a request, in lower case, that belong into its `Asker`."""
        ...

    def converse(self, asker: Asker) -> Conversation:
        """The conversation of a request."""
        ...
