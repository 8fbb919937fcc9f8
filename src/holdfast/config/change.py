"""How two editions of the settings differ, as far as somebody must act on it. Pure."""

from __future__ import annotations

from collections.abc import Collection

from holdfast.config.settings import ClientSettings, GatewaySettings, ServerSettings, ToolRules


class Change:
    """What differs from the edition `before` in the edition `after`; names of servers and of clients."""

    def __init__(self, before: GatewaySettings, after: GatewaySettings) -> None:
        old, new = ({each.name: each for each in settings.servers} for settings in (before, after))
        self.added = tuple(name for name in new if name not in old)
        self.removed = tuple(name for name in old if name not in new)
        self.changed = tuple(name for name, each in new.items() if name in old and old[name] != each)
        older, newer = ({each.name: each for each in settings.clients} for settings in (before, after))
        self.clients = tuple(name for name in {**older, **newer} if older.get(name) != newer.get(name))
        """Clients that came, differ, or went."""
        self.tools_differ = frozenset(name for name in self.changed if _offers_of(old[name]) != _offers_of(new[name]))
        """Servers that are there as before, with other tools for everyone."""
        self._stay = old.keys() & new.keys()
        clients = {client.name: client for client in after.clients}
        self._kept = [(client, clients[client.name]) for client in before.clients if client.name in clients]
        self.clients_gone = frozenset(client.name for client in before.clients if client.name not in clients)
        self.clients_narrowed = frozenset(
            now.name for was, now in self._kept if was.trust != now.trust or _sees_less(was, now, self._stay)
        )
        """Clients that may see less, or name others: their sessions with us rest on what they were."""
        self.clients_widened = (
            frozenset(now.name for was, now in self._kept if was.servers != now.servers) - self.clients_narrowed
        )

    def barred_from(self, server: str) -> frozenset[str]:
        """The clients whose sessions with a server may not go on.

        A client that names its users by another header names others, even where the names are the same.
        Of a server that is removed, what runs may end.
        """
        return self.clients_gone | {
            now.name
            for was, now in self._kept
            if was.trust != now.trust or (server in self._stay and was.may_see(server) and not now.may_see(server))
        }


def _offers_of(server: ServerSettings) -> tuple[object, ...]:
    """What decides on its list of tools; that of handles says for how long they live."""
    return server.tools, server.handles, server.idle_timeout if server.handles else None


def _sees_less(was: ClientSettings, now: ClientSettings, servers: Collection[str]) -> bool:
    """Whether something of `servers`, which were there and are, was to be seen and is no more."""
    if now.servers is None:
        return False
    seen = now.servers
    if was.servers is None:
        return any(name not in seen or not seen[name].admits_all for name in servers)
    rules = {name: rule for name, rule in was.servers.items() if name in servers}
    return any(name not in seen or _admits_less(rule, seen[name]) for name, rule in rules.items())


def _admits_less(was: ToolRules, now: ToolRules) -> bool:
    """Whether a tool may have been admitted that is no more, as far as patterns tell."""
    if now.admits_all:
        return False
    return not (set(was.allow) <= set(now.allow) and set(now.deny) <= set(was.deny))
