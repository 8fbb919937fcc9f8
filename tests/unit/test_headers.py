"""Header values: which answer a client takes, what a session id is, whose host name it is."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.wire.headers import (
    Accepts,
    bearer_token,
    host_name,
    is_loopback_name,
    is_session_id,
    media_type,
    origin_host,
    parse_accept,
)
from requirements import requirement

JSON_ONLY = Accepts(json=True, stream=False)
STREAM_ONLY = Accepts(json=False, stream=True, prefers_stream=True)
JSON_FIRST = Accepts(json=True, stream=True)
STREAM_FIRST = Accepts(json=True, stream=True, prefers_stream=True)
NEITHER = Accepts(json=False, stream=False)


@requirement("wire:headers:curl-gets-json")
@pytest.mark.parametrize("value", [None, "", " ", "*/*", "application/*", "*/*;q=0.1", "text/html, */*;q=0.8"])
def test_a_client_that_names_no_type_gets_json(value: str | None) -> None:
    assert parse_accept(value) == JSON_ONLY


@pytest.mark.parametrize(
    ("value", "accepts"),
    [
        ("application/json", JSON_ONLY),
        ("text/event-stream", STREAM_ONLY),
        ("text/*", STREAM_ONLY),
        ("application/json, text/event-stream", JSON_FIRST),
        ("text/event-stream, application/json", STREAM_FIRST),
        ("text/event-stream,application/json;q=0.9", STREAM_FIRST),
        ("text/event-stream;q=0.5, application/json", JSON_FIRST),
        ("text/event-stream;q=0.5, application/json;q=0.9", JSON_FIRST),
        ("application/json;q=0.5, text/event-stream;q=0.9", STREAM_FIRST),
        ("text/event-stream, */*", STREAM_FIRST),
        ("APPLICATION/JSON , Text/Event-Stream", JSON_FIRST),
        ("application/json;charset=utf-8;q=1.0, text/event-stream ; q=1", JSON_FIRST),
        ("application/json;q=0, text/event-stream", STREAM_ONLY),
        ("application/json;q=0, */*", NEITHER),
        ("text/event-stream;q=0, application/json", JSON_ONLY),
        ("text/html", NEITHER),
        ("application/json;q=much", NEITHER),
        ("application/json;q=-1", NEITHER),
        ("application/json;q=nan", NEITHER),
        (",,;,", NEITHER),
    ],
)
def test_accept_says_which_types_are_taken_and_which_comes_first(value: str, accepts: Accepts) -> None:
    assert parse_accept(value) == accepts


@given(st.text(st.characters(max_codepoint=255), max_size=60))
@example("application/json;q=1e999, text/event-stream")
@example(";q=;q=")
def test_any_accept_header_is_read(value: str) -> None:
    accepts = parse_accept(value)
    assert accepts.stream or not accepts.prefers_stream


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        ("", ""),
        ("application/json", "application/json"),
        ("Application/JSON; charset=utf-8", "application/json"),
        (" text/event-stream ;x", "text/event-stream"),
    ],
)
def test_a_media_type_stands_without_parameters_in_lower_case(value: str | None, expected: str) -> None:
    assert media_type(value) == expected


@requirement("wire:headers:session-ids-are-visible-ascii")
@given(st.text(max_size=20))
@example("abc\n")
@example("a b")
@example("\x20")
@example("\x21~\x7e")
@example("\x7f")
@example("é")
@example("٣")
def test_a_session_id_is_visible_ascii(value: str) -> None:
    assert is_session_id(value) == (bool(value) and all(0x21 <= ord(letter) <= 0x7E for letter in value))


def test_a_session_id_has_a_length() -> None:
    assert is_session_id("x" * 1024)
    assert not is_session_id("x" * 1025)


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8790", "localhost"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("[::1]", "[::1]"),
        ("[::1]:8790", "[::1]"),
        ("[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]"),
        (" holdfast.internal ", "holdfast.internal"),
        ("holdfast.internal:", "holdfast.internal"),
    ],
)
def test_a_host_stands_without_its_port_in_lower_case(authority: str, host: str) -> None:
    assert host_name(authority) == host


@pytest.mark.parametrize(
    "authority",
    [
        *("", ":", ":80", "[::1", "[]", "[::1]evil.example", "[::1].evil.example:80", "::1"),
        *("localhost:80:90", "localhost:evil.example", "localhost@evil.example", "user:localhost@evil.example"),
        *(
            "localhost/evil.example",
            "localhost\\evil.example",
            "localhost#evil.example",
            "localhost?x",
            "localhost evil",
        ),
        *("localhost,evil.example:x", "http://localhost", "localhost:٣"),
    ],
)
def test_what_is_no_host_and_port_has_no_host(authority: str) -> None:
    assert host_name(authority) == ""
    assert not is_loopback_name(host_name(authority))


@pytest.mark.parametrize(
    "authority",
    [
        "localhost.evil.example",
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.",
        "127.1",
        "0.0.0.0",
        "xlocalhost",
        "127.0.0.11",
    ],
)
def test_only_the_plain_names_of_loopback_are_loopback(authority: str) -> None:
    assert not is_loopback_name(host_name(authority))


@pytest.mark.parametrize("authority", ["localhost", "LOCALHOST:80", "127.0.0.1:8790", "[::1]:1"])
def test_loopback_is_known_with_any_port(authority: str) -> None:
    assert is_loopback_name(host_name(authority))


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:3000", "localhost"),
        ("https://[::1]", "[::1]"),
        ("HTTPS://Pages.Example", "pages.example"),
        ("null", ""),
        ("", ""),
        ("localhost", ""),
        ("http://[", ""),
        ("http://[::1", ""),
        ("http://[::1]x", ""),
        ("http://[x]", ""),
        ("http://a@localhost", ""),
        ("http://local\thost", ""),
        ("http://localhost/path", ""),
        ("http://localhost?", ""),
    ],
)
def test_an_origin_has_the_host_of_its_address_or_none(origin: str, host: str) -> None:
    assert origin_host(origin) == host


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("BEARER   abc  ", "abc"),
        (None, None),
        ("", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("Basic YTpi", None),
        ("abc", None),
        ("Bearerabc", None),
    ],
)
def test_a_bearer_token_is_read(header: str | None, token: str | None) -> None:
    assert bearer_token(header) == token
