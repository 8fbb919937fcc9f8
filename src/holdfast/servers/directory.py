"""Which service a path names, for whom."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.config.settings import Merging
from holdfast.identity.caller import Identity
from holdfast.servers.merged import Merged
from holdfast.servers.server import Server
from holdfast.servers.service import Service


class Directory:
    """The servers by name, and all of them as one. Changed by a reload only."""

    def __init__(self, merged: Merged) -> None:
        self.merged = merged
        self._servers: dict[str, Server] = {}
        self._merging: Merging = "several"

    def __iter__(self) -> Iterator[Server]:
        return iter(self._servers.values())

    def find(self, name: str) -> Server | None:
        """The server of that name."""
        return self._servers.get(name)

    def __getitem__(self, name: str) -> Server:
        return self._servers[name]

    def __contains__(self, name: object) -> bool:
        return name in self._servers

    def replace(self, servers: dict[str, Server], separator: str, merging: Merging = "several") -> None:
        """Serve these, and nothing else, from now on."""
        self._servers = servers
        self._merging = merging
        self.merged.replace(servers.values(), separator)

    def one(self, name: str, identity: Identity) -> Service | None:
        """The server of that name, if it exists for the caller."""
        return self._servers.get(name) if identity.may_see(name) else None

    def whole(self, identity: Identity) -> Service | None:
        """What `/mcp` is: the only server as it is, or all of them as one."""
        if len(self._servers) != 1 or self._merging == "always":
            return self.merged
        (only,) = self._servers.values()
        return only if identity.may_see(only.name) else None

    def serves(self, service: Service, identity: Identity) -> bool:
        """Whether a service, which may have been found earlier, exists for the caller now."""
        return service is self.merged or self.one(service.name, identity) is service

    def visible(self, identity: Identity) -> list[str]:
        """The names of the servers that exist for the caller."""
        return [name for name in self._servers if identity.may_see(name)]
