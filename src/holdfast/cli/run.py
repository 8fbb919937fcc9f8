"""`holdfast run`: a gateway in front of one server, without a settings file."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.cli.settings import (
    check_command,
    described,
    name_of,
    parse_headers,
    parse_key,
    parse_trust,
    split_target,
)
from holdfast.cli.start import start
from holdfast.config import ClientSettings, GatewaySettings, ServerSettings, key_digest
from holdfast.errors import ConfigError


def run(settings: GatewaySettings, log_level: str) -> None:
    """Serve until a signal. Raises `ConfigError` where the address is taken."""
    start(settings, log_level, warnings(settings))


def find_settings(
    target: Sequence[str],
    *,
    port: int,
    host: str,
    name: str | None,
    scope: str,
    headers: Sequence[str],
    key: str | None,
    trust: str | None,
    jwt_secret: str | None,
    allowed_hosts: Sequence[str],
    max_sessions: int | None,
    handles: bool,
    idle_timeout: float,
) -> GatewaySettings:
    """The settings that the command line means. Raises `ConfigError`."""
    url, command = split_target(target)
    if command is not None and headers:
        raise ConfigError("--header is for servers at a URL; a command takes its credentials from the environment")
    with described():
        server = ServerSettings.model_validate(
            {
                "name": name or name_of(url, command),
                "url": url,
                "command": command,
                "headers": parse_headers(headers),
                "scope": scope,
                "max_sessions": max_sessions,
                "handles": handles,
                "idle_timeout": idle_timeout,
            }
        )
        secret = parse_key(key)
        client = ClientSettings(
            name="local" if secret is None else "client",
            key_digests=() if secret is None else (key_digest(secret),),
            trust=parse_trust(trust, jwt_secret),
        )
        settings = GatewaySettings(
            host=host, port=port, allowed_hosts=tuple(allowed_hosts), clients=(client,), servers=(server,)
        )
    if command is not None:
        check_command(command)
    return settings


def warnings(settings: GatewaySettings) -> list[str]:
    """What the operator may not have meant."""
    found = [
        f"{server.name} may have one session, and each {server.scope} wants its own: they take turns, and lose state."
        " --scope shared lets all use the one."
        for server in settings.servers
        if server.scope != "shared" and server.max_sessions == 1
    ]
    if any(each.trust.headers and each.trust.jwt_secret is None and not each.key_digests for each in settings.clients):
        found.append("Without --key any program on this machine may name any user and chat.")
    if not settings.is_loopback and not settings.allowed_hosts:
        found.append("Clients on other machines are refused until --allow-host says by which name they call.")
    return found
