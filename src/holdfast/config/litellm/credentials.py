"""What LiteLLM sends with every request to a server, and what of a client's request goes on to it."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from holdfast.config.headers import HEADER_NAME, OWN_HEADERS, pass_fault
from holdfast.config.litellm.reading import AS_IT_STANDS, Reading, Reference, fill, is_reference, literal
from holdfast.config.source import Item
from holdfast.config.values import Where

_SLOTS: Final = {
    "api_key": "X-API-Key",
    **dict.fromkeys(("bearer_token", "token", "basic", "authorization"), "Authorization"),
}
_SCHEMES: Final = {"bearer_token": "Bearer", "token": "token", "basic": "Basic"}
_BEYOND: Final = (
    "oauth2",
    "aws_sigv4",
    "oauth2_token_exchange",
    "oauth2_id_jag",
    "true_passthrough",
    "oauth_delegate",
)
AUTH_TYPES: Final = ("none", *_SLOTS, *_BEYOND)
OF_TOKENS: Final = frozenset(
    (
        *("client_id", "client_secret", "oauth2_flow", "issuer", "authorization_url", "token_url", "scopes"),
        *("registration_url", "token_endpoint_auth_method", "dcr_bridge", "per_server_oauth_discovery"),
        *("delegate_auth_to_upstream", "oauth_passthrough", "token_validation", "oauth_identity_binding"),
        *("token_exchange_endpoint", "token_exchange_profile", "audience", "subject_token_type"),
        *("upstream_resource", "client_private_key", "client_private_key_id", "client_assertion_signing_alg"),
        *("id_jag_resource_token_endpoint", "id_jag_resource", "id_jag_subject_source"),
        *("id_jag_resource_client_id", "id_jag_resource_client_secret"),
        *("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_region_name"),
        *("aws_service_name", "aws_role_name", "aws_session_name"),
    )
)
"""What LiteLLM fetches and exchanges tokens with."""
NO_TOKENS: Final = "Holdfast fetches and exchanges no tokens"
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_WITHOUT: Final = "the server is asked without a credential until headers has one"


def read_headers(entries: dict[str, Item], where: Where, reading: Reading) -> dict[str, str]:
    """The headers of a server with a url: its credential, and `static_headers`, which come before it."""
    headers = _credential(entries, where, reading)
    given = entries.get("static_headers")
    place = (*where, "static_headers")
    known = _variables(entries.get("env_vars"), (*where, "env_vars"), reading)
    for name, entry in reading.mapping(given, place).items() if given is not None else ():
        value = _header(name, entry, (*place, name), known, reading)
        if value is None:
            continue
        for other in [each for each in headers if each.lower() == name.lower()]:
            reading.remark(entry, (*place, name), "counts, and not what stands elsewhere for the same header")
            del headers[other]
        headers[name] = value
    return headers


def read_passed(entries: dict[str, Item], headers: dict[str, str], where: Where, reading: Reading) -> list[str]:
    """`extra_headers`: the names of a client's headers that go on to the server."""
    item = entries.get("extra_headers")
    place = (*where, "extra_headers")
    own = {name.lower() for name in headers}
    passed: dict[str, str] = {}
    for name in reading.texts(item, place) if item is not None else ():
        fault = pass_fault(name)
        if fault is None and name.lower() in own:
            fault = "has a value of the server's own, which comes before the client's"
        if fault is not None and item is not None:
            shown = name if HEADER_NAME.fullmatch(name) else "a name in it"
            reading.remark(item, place, f"{shown} is left out: it {fault}")
        else:
            passed[name.lower()] = name
    return list(passed.values())


def is_beyond(entries: dict[str, Item]) -> bool:
    """Whether the credential is one that would have to be fetched, exchanged or made for each request."""
    kind = entries.get("auth_type")
    return kind is not None and kind.text in _BEYOND


def token_keys(entries: dict[str, Item]) -> list[str]:
    """The keys of `OF_TOKENS` that say something, in the order of the file."""
    return [key for key, entry in entries.items() if key in OF_TOKENS and entry.value not in (None, "", [], {})]


def _credential(entries: dict[str, Item], where: Where, reading: Reading) -> dict[str, str]:
    kind, slot = entries.get("auth_type"), entries.get("upstream_token_header")
    key = "authentication_token" if "authentication_token" in entries else "auth_value"
    value = entries.get(key)
    chosen = None if kind is None or kind.value is None else reading.choice(kind, (*where, "auth_type"), AUTH_TYPES)
    if kind is not None and chosen in _BEYOND:
        rest = "".join(f", nor {', '.join(keys)}" for keys in [token_keys(entries)] if keys)
        what = f"{chosen} is not carried over{rest}: {NO_TOKENS}; {_WITHOUT}"
        reading.remark(kind, (*where, "auth_type"), what)
        return {}
    if value is None or value.value is None:
        if kind is not None and chosen in _SLOTS:
            reading.remark(kind, (*where, "auth_type"), f"has no auth_value; {_WITHOUT}")
        return {}
    if chosen is None or chosen == "none":
        reading.remark(value, (*where, key), "is left out: without an auth_type, LiteLLM does not send it either")
        return {}
    written = _authorization(chosen, value, (*where, key), reading)
    name = _SLOTS[chosen] if slot is None or not slot.text.strip() else slot.text.strip()
    fault = _name_fault(name)
    if slot is not None and fault is not None:
        reading.remark(slot, (*where, "upstream_token_header"), f"{fault}; {_WITHOUT}")
        return {}
    return {} if written is None else {name: written}


def _authorization(chosen: str, value: Item, where: Where, reading: Reading) -> str | None:
    """The value of the header: its scheme and what LiteLLM puts behind it."""
    scheme = _SCHEMES.get(chosen)
    if is_reference(value) or isinstance(value.value, dict | list):
        text = reading.text(value, where)
        if text is not None and chosen == "basic":
            what = "is sent as it is, where LiteLLM encodes it: let the variable hold user:password in Base64"
            reading.remark(value, where, what)
        return text if scheme is None or text is None else f"{scheme} {text}"
    plain = value.text.strip()
    if _CONTROL.search(plain) or not plain:
        reading.remark(value, where, f"is left out: it is empty or has a line end in it; {_WITHOUT}")
        return None
    reading.guard(value, where)
    if scheme is None:
        return literal(plain)
    first, _, rest = plain.partition(" ")
    bare = rest.strip() if rest.strip() and first.lower() == scheme.lower() else plain
    if chosen == "basic" and (bare == plain or not _is_encoded(bare)):
        bare = base64.b64encode(bare.encode()).decode()
    return f"{scheme} {literal(bare)}"


def _is_encoded(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _header(name: str, entry: Item, where: Where, known: dict[str, str | Reference], reading: Reading) -> str | None:
    """The value of one of `static_headers`. None after something was said."""
    fault = _name_fault(name)
    if fault is not None:
        reading.remark(entry, where, f"is left out: it {fault}")
        return None
    if is_reference(entry) or isinstance(entry.value, dict | list) or entry.value is None:
        return reading.text(entry, where)
    filled = fill(entry.text.strip(), known)
    if filled is None:
        reading.remark(entry, where, "is left out: a $ stands right before a variable, which cannot be written here")
        return None
    written, references = filled[0].strip(), filled[1]
    if _CONTROL.search(written):
        reading.remark(entry, where, "is left out: it has a line end or another control character in it")
        return None
    for reference in references:
        reading.refer(reference)
    if "$${" in written:
        reading.remark(entry, where, AS_IT_STANDS)
    reading.guard(entry, where)
    return written


def _name_fault(name: str) -> str | None:
    if not HEADER_NAME.fullmatch(name):
        return "is no name of a header"
    return "is written by Holdfast itself" if name.lower() in OWN_HEADERS else None


def _variables(item: Item | None, where: Where, reading: Reading) -> dict[str, str | Reference]:
    """`env_vars` by name: what stands in `static_headers` as `${NAME}`."""
    known: dict[str, str | Reference] = {}
    rows = item.value if item is not None and isinstance(item.value, list) else []
    if item is not None and item.value is not None and not isinstance(item.value, list):
        reading.problems.add(item.line, where, f"takes a list; {reading.stands(item)}")
    for number, each in enumerate(rows, 1):
        place = (*where, str(number))
        name, value, scope = (each.get(key) for key in ("name", "value", "scope"))
        if name is None:
            reading.problems.add(each.line, place, "has no name")
        elif scope is not None and scope.text == "user":
            what = f"{name.text} is not carried over: its value is another for each user; see pass_headers"
            reading.remark(each, place, what)
        elif value is not None and is_reference(value):
            reference = reading.reference(value, (*place, "value"))
            known |= {} if reference is None else {name.text: reference}
        else:
            known[name.text] = "" if value is None else value.text
    return known
