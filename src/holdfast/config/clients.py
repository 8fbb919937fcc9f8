"""The clients of a settings file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import SecretStr, ValidationError

from holdfast.config.headers import HEADER_NAME
from holdfast.config.rules import read_servers_seen
from holdfast.config.settings import TRUST_PRESETS, ClientSettings, Trust, key_digest
from holdfast.config.source import Item
from holdfast.config.values import Values, Where, guess, shown

KEY_FORMS: Final = ("key", "keys", "key_file")
KEYS: Final = (*KEY_FORMS, "trust", "servers")
"""What a client may be given; its name is its key in the mapping."""

_HINTS: Final[Mapping[str, str]] = {
    "token": "write key",
    "secret": "write key",
    "api_key": "write key",
    "password": "write key",
    "tokens": "write keys",
    "api_keys": "write keys",
    "keyfile": "write key_file",
    "file": "write key_file",
    "name": "a client's name is its key: clients: {NAME: …}",
    "key_digest": "write key: a digest is made of it",
    "key_digests": "write keys: digests are made of them",
    "user": "belongs into trust: {user: HEADER}",
    "chat": "belongs into trust: {chat: HEADER}",
    "server": "write servers: [NAME, …]",
    "tools": "belongs to a server that it sees: servers: {NAME: {tools: {allow: […]}}}",
    "allow": "belongs to a server that it sees: servers: {NAME: {tools: {allow: […]}}}",
    "deny": "belongs to a server that it sees: servers: {NAME: {tools: {deny: […]}}}",
    "scopes": "write servers: [NAME, …]",
    "headers": "belongs to a server; what a client may name stands in trust",
}
_HEADERS: Final = ("user", "chat", "jwt")
"""What names a header in `trust`."""
_TRUST_HINTS: Final[Mapping[str, str]] = {
    "secret": "write jwt_secret",
    "token": "write jwt",
    "host": "write preset",
}


def read_clients(item: Item | None, servers: Item | None, values: Values) -> list[ClientSettings]:
    """Every client that could be read; what could not is noted. None are named where there is no item.

    `servers` are those of the file, which a client may name.
    """
    where: Where = ("clients",)
    if item is None or item.value is None or item.value == {}:
        return []
    if isinstance(item.value, list):
        values.problems.add(item.line, where, "takes names, not a list: write NAME: instead of - name: NAME")
        return []
    entries = values.mapping(item, where, "names, each with its client")
    known = list(servers.value) if servers is not None and isinstance(servers.value, dict) else []
    clients = [_read_client(name, entry, (*where, name), known, values) for name, entry in entries.items()]
    _tell_apart(clients, entries, values)
    return clients


def _read_client(name: str, item: Item, where: Where, known: Sequence[str], values: Values) -> ClientSettings:
    if not name.strip() or not name.isprintable():
        values.problems.add(item.line, where, "a client's name is empty, or cannot be printed")
    if not isinstance(item.value, dict):
        if item.value is not None:
            what = "takes settings, not a value alone: write key: before it, in a line of its own"
            values.problems.add(item.line, where, what)
        return ClientSettings(name=name)
    values.unknown(item, where, KEYS, _HINTS, {})
    given = [key for key in KEY_FORMS if key in item.value]
    if len(given) > 1:
        values.problems.add(item.line, where, f"has {' and '.join(given)}; give one of them (keys takes several)")
    digests: list[bytes] = []
    for form in given:
        digests += _digests(form, item.value[form], (*where, form), values)
    trust, servers = item.get("trust"), item.get("servers")
    client = ClientSettings(
        name=name,
        key_digests=tuple(dict.fromkeys(digests)),
        trust=Trust() if trust is None else _trust(trust, (*where, "trust"), values),
        servers=None if servers is None else read_servers_seen(servers, (*where, "servers"), known, values) or None,
    )
    if trust is not None and not given and client.trust.jwt_secret is None:
        values.notes.add(item.line, where, "has no key, so any program on this machine may name any user and chat")
    return client


def _digests(form: str, item: Item, where: Where, values: Values) -> list[bytes]:
    if form == "keys":
        if not isinstance(item.value, list) or not item.value:
            what = "names no key" if item.value == [] else f"takes a list of keys; {item.kind} stands here"
            values.problems.add(item.line, where, f'{what}; write ["${{KEY}}", "${{NEXT_KEY}}"], or key for one')
            return []
        pairs = [(each, (*where, str(number))) for number, each in enumerate(item.value, 1)]
    else:
        pairs = [(item, where)]
    digests: list[bytes] = []
    for each, place in pairs:
        secret = values.secret_file(each, place) if form == "key_file" else values.secret(each, place)
        if secret is None:
            continue
        digest = read_key(secret, each, place, values)
        digests += () if digest is None else (digest,)
    return digests


def read_key(secret: SecretStr, item: Item, where: Where, values: Values) -> bytes | None:
    """The digest of a key that someone is to bear; None after the problem was noted."""
    key = secret.get_secret_value()
    if not key:
        what = "is empty, which would admit everybody; leave it out to mean that"
    elif re.fullmatch(r"[\x21-\x7e]+", key) is None:
        what = "has a space, a line end or another character that no Authorization header can carry"
    else:
        return key_digest(key)
    values.problems.add(item.line, where, what)
    return None


def _trust(item: Item, where: Where, values: Values) -> Trust:
    presets = ", ".join(TRUST_PRESETS)
    expected = f"{presets}, or {{user: HEADER, chat: HEADER}}"
    if not isinstance(item.value, dict):
        return _preset(item, where, expected, values)
    if not item.value:
        values.problems.add(item.line, where, f"is empty; it takes {expected}")
    values.unknown(item, where, ("preset", *Trust.model_fields), _TRUST_HINTS, {})
    preset, secret = item.get("preset"), item.get("jwt_secret")
    trust = Trust() if preset is None else _preset(preset, (*where, "preset"), presets, values)
    given: dict[str, object] = {}
    for key in _HEADERS:
        entry = item.get(key)
        name = None if entry is None else values.text(entry, (*where, key), "the name of a header")
        if entry is None or name is None:
            continue
        if not HEADER_NAME.fullmatch(name):
            what = f"{shown(entry)} is no name of a header: letters, digits and dashes"
            values.problems.add(entry.line, (*where, key), what)
        given[key] = name.lower()
    if secret is not None:
        read = values.secret(secret, (*where, "jwt_secret"))
        if read is not None:
            given["jwt_secret"] = SecretStr(read.get_secret_value().strip())  # as Open WebUI does
    elif "jwt" in given:
        values.problems.add(item.line, (*where, "jwt"), "names where a token is found, and there is no jwt_secret")
    try:
        return Trust.model_validate({**trust.model_dump(), **given})
    except ValidationError as error:
        values.refused(error.errors(include_url=False, include_input=False), item, where, lambda _: None)
        return trust


def _preset(item: Item, where: Where, expected: str, values: Values) -> Trust:
    text = values.text(item, where, expected)
    if text is not None and text not in TRUST_PRESETS:
        near = guess(item.text, TRUST_PRESETS)
        values.problems.add(item.line, where, f"{shown(item)} is no preset{near}; it takes {expected}")
    return TRUST_PRESETS.get(text or "", Trust())


def _tell_apart(clients: list[ClientSettings], entries: Mapping[str, Item], values: Values) -> None:
    """No two clients may look alike to the gateway."""
    owners: dict[bytes | None, str] = {}
    for client in clients:
        item = entries[client.name]
        has_given = any(item.get(form) is not None for form in KEY_FORMS)
        for digest in client.key_digests or (() if has_given else (None,)):
            other = owners.setdefault(digest, client.name)
            if other != client.name:
                same = "has no key, like" if digest is None else "has the same key as"
                what = f"{same} {other} (line {entries[other].line}), so nothing tells them apart"
                values.problems.add(item.line, ("clients", client.name), what)
