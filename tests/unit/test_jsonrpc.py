"""JSON-RPC messages: what is taken from clients, what passes from servers, what we write."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec
import pydantic_core
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw

from holdfast.call import Json
from holdfast.wire import jsonrpc
from holdfast.wire.jsonrpc import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    MAX_ARRAY_BYTES,
    MAX_DEPTH,
    MAX_PARTS,
    PARSE_ERROR,
    BadMessage,
    ClientNotification,
    ClientReply,
    ClientRequest,
    decode_array,
    decode_client,
    decode_fields,
    decode_server,
    decode_value,
    encode,
    id_bytes,
    is_too_long_an_array,
    is_utf8,
)
from requirements import requirement
from rows import row

PARSERS: Final[dict[str, Callable[[bytes], Any]]] = {
    "json": json.loads,
    "msgspec": msgspec.json.decode,
    "pydantic_core": pydantic_core.from_json,
}
if importlib.util.find_spec("orjson"):  # a fourth opinion where it happens to be installed
    PARSERS["orjson"] = importlib.import_module("orjson").loads

INTEGERS: Final = st.integers(-(2**63), 2**64 - 1)
FLOATS: Final = st.floats(allow_nan=False, allow_infinity=False)
TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
KEYS: Final = st.sampled_from(["a", "A", "", "__proto__", "é", "\u2028", "\0", "a\nb"]) | TEXT
VALUES: Final = st.recursive(
    st.none() | st.booleans() | INTEGERS | FLOATS | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(KEYS, children, max_size=4),
    max_leaves=20,
)
PARAMS: Final = st.dictionaries(KEYS.filter(lambda key: key != "_meta"), VALUES, max_size=5)


def same(one: object, other: object) -> bool:
    """Equal in value and in type, all the way down: 1, 1.0 and True differ, and so do 0.0 and -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        left, right = cast("dict[str, object]", one), cast("dict[str, object]", other)
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(one, list):
        first, second = cast("list[object]", one), cast("list[object]", other)
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(one, float) and isinstance(other, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return one == other


def refusal(body: bytes) -> BadMessage:
    with pytest.raises(BadMessage) as caught:
        decode_client(body)
    return caught.value


def attempt(body: bytes) -> jsonrpc.ClientMessage | list[jsonrpc.ClientMessage] | BadMessage:
    try:
        return decode_client(body)
    except BadMessage as refused:
        return refused


def request_of(body: bytes) -> ClientRequest:
    message = decode_client(body)
    assert isinstance(message, ClientRequest)
    return message


def call(params: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":%b}' % params


def assert_read_the_same_everywhere(params: dict[str, Json]) -> None:
    sent = encode(params)
    assert not {b"\n", b"\r"} & {sent[i : i + 1] for i in range(len(sent))}
    for name, parse in PARSERS.items():
        assert same(parse(sent), params), name


# What goes on


@requirement("wire:client:what-goes-on-reads-the-same-everywhere")
@given(PARAMS, st.booleans(), st.sampled_from([None, 2, "\r\n"]))
def test_what_goes_on_is_what_was_decoded_whatever_reads_it(
    params: dict[str, Json], escapes: bool, indent: int | str | None
) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    decoded = request_of(json.dumps(message, ensure_ascii=escapes, indent=indent).encode()).params
    assert same(decoded, params)
    assert_read_the_same_everywhere(decoded)


NUMBERS: Final = st.from_regex(r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
ESCAPES: Final = st.from_regex(r"(\\u[0-9a-fA-F]{4}|\\[\"\\/bfnrt]|[a-z \x7f\u2028é😀]){0,6}", fullmatch=True)
DOCUMENTS: Final = st.recursive(
    NUMBERS
    | ESCAPES.map(lambda text: f'"{text}"')
    | st.sampled_from(["null", "true", "NaN", "-Infinity", "01", "1.", "'a'"]),
    lambda children: (
        st.lists(children, max_size=3).map(lambda items: "[" + " , ".join(items) + "]")
        | st.lists(st.tuples(ESCAPES, children), max_size=4).map(
            lambda pairs: "{" + ",\r\n".join(f'"{key}":\t{value}' for key, value in pairs) + "}"
        )
    ),
    max_leaves=8,
)


@requirement("wire:client:what-goes-on-reads-the-same-everywhere")
@given(DOCUMENTS)
@example(r'"\ud800"')
@example('{"a":1,"a":{"b":2},"a":3}')
@example("123456789012345678901234567890")
@example("1e999")
@example("-0")
def test_what_parsers_may_quarrel_over_is_refused_or_made_plain(document: str) -> None:
    body = call(b'{"x":%b}' % document.encode())
    outcome = attempt(body)
    if isinstance(outcome, BadMessage):
        assert outcome.code in {PARSE_ERROR, INVALID_REQUEST}
    else:
        decoded = request_of(body).params
        assert same(encode(decoded), encode(json.loads(body)["params"])), "the strictest reader's meaning is kept"
        assert_read_the_same_everywhere(decoded)


@requirement("wire:client:what-goes-on-reads-the-same-everywhere")
def test_of_duplicate_keys_the_last_counts_and_the_others_are_gone() -> None:
    params = request_of(call(b'{"name":"safe","name":"rm","\\u006eame":"last"}')).params
    assert encode(params) == b'{"name":"last"}'


@requirement("wire:client:what-goes-on-reads-the-same-everywhere")
def test_a_second_message_cannot_be_smuggled_in_pretty_printed_arguments() -> None:
    params = request_of(call(b'{"a":\r\n{"jsonrpc":"2.0","id":9,"method":"x"}\r\n}')).params
    assert jsonrpc.request(1, "tools/call", params).count(b"\n") == 0


# What is refused


def nested(depth: int, opening: bytes, middle: bytes, closing: bytes) -> bytes:
    return opening * depth + middle + closing * depth


@requirement("wire:client:depth-is-bounded")
@pytest.mark.parametrize("middle", [b"", b"1", b'"["'], ids=["empty", "number", "string"])
def test_depth_128_is_taken_and_129_refused(middle: bytes) -> None:
    outer = 2  # the message and its params
    request_of(call(b'{"x":%b}' % nested(MAX_DEPTH - outer, b"[", middle, b"]")))
    refused = refusal(call(b'{"x":%b}' % nested(MAX_DEPTH - outer + 1, b"[", middle, b"]")))
    assert refused.code == INVALID_REQUEST
    assert "128" in refused.message


@requirement("wire:client:depth-is-bounded")
@given(st.integers(1, 300), st.sampled_from([b"", b"1", b"null"]), st.booleans())
@example(128, b"", True)
@example(129, b"", True)
def test_depth_is_counted_in_objects_and_arrays(depth: int, middle: bytes, uses_arrays: bool) -> None:
    if uses_arrays:
        body = nested(depth, b"[", middle, b"]")
    else:
        body = nested(depth, b'{"a":', middle or b"{}", b"}")
        depth += not middle
    if depth <= MAX_DEPTH:
        jsonrpc.decode_checked(body)
    else:
        with pytest.raises(BadMessage):
            jsonrpc.decode_checked(body)


@requirement("wire:client:depth-is-bounded")
@pytest.mark.parametrize("unit", [b"[", b'{"a":', b'[{"a":'])
@pytest.mark.parametrize("depth", [1_000, 600_000])
def test_a_bottomless_message_is_refused_and_crashes_nothing(unit: bytes, depth: int) -> None:
    assert refusal(unit * depth).code in {PARSE_ERROR, INVALID_REQUEST}


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert request_of(call(b'{"x":[%b]}' % b",".join([b"[]", b"{}"] * 500))).method == "tools/call"
    assert request_of(call(b'{"x":"%b"}' % (b"[" * 1000))).params == {"x": "[" * 1000}


@requirement("wire:client:integers-fit-64-bits")
@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 2**53 + 1, 0])
def test_an_integer_of_64_bits_passes_exactly(number: int) -> None:
    assert encode(request_of(call(b'{"x":[{"y":%d}]}' % number)).params) == b'{"x":[{"y":%d}]}' % number


@requirement("wire:client:integers-fit-64-bits")
@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**40, 10**4000])
def test_an_integer_beyond_64_bits_is_refused_wherever_it_stands(number: int) -> None:
    for params in (b'{"x":%d}' % number, b'{"x":[{"y":%d}]}' % number):
        assert refusal(call(params)).code == INVALID_REQUEST
    assert refusal(b'{"jsonrpc":"2.0","id":%d,"method":"ping"}' % number).code == INVALID_REQUEST
    assert refusal(b'[{"jsonrpc":"2.0","method":"ping","params":{"x":%d}}]' % number).code == INVALID_REQUEST


def test_a_number_that_no_double_can_hold_is_refused() -> None:
    assert refusal(call(b'{"x":1e400}')).code == INVALID_REQUEST


def test_digits_in_strings_and_fractions_are_no_integers() -> None:
    digits = b"1" * 30
    assert request_of(call(b'{"x":"%b","y":0.%b}' % (digits, digits))).params["x"] == digits.decode()


@requirement("wire:client:malformed-is-answered")
@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b" ",
            b"{",
            b"}",
            b"nope",
            b'{"jsonrpc":"2.0",}',
            b"{'jsonrpc':'2.0'}",
            b"1 2",
            b"{}{}",
            b"\xef\xbb\xbf{}",
        ),
        *(
            call(b'{"x":%b}' % value)
            for value in (b"NaN", b"Infinity", b"-Infinity", b"01", b"+1", b".5", b"1.", b"0x1")
        ),
        *(
            call(b'{"x":"%b"}' % text)
            for text in (rb"\ud800", rb"\udc00", rb"\udc00\ud800", b"\n", b"\0", b"\xff", b"\xc0\xaf")
        ),
        *(call(b'{"%b":1}' % key) for key in (rb"\ud800", b"\xed\xa0\x80", rb"\x")),
    ],
)
def test_what_is_no_json_is_a_parse_error(body: bytes) -> None:
    assert refusal(body).code == PARSE_ERROR


@requirement("wire:client:malformed-is-answered")
@pytest.mark.parametrize(
    ("body", "code", "request_id"),
    [
        (b"1", INVALID_REQUEST, None),
        (b'"x"', INVALID_REQUEST, None),
        (b"null", INVALID_REQUEST, None),
        (b"[]", INVALID_REQUEST, None),
        (b"[1]", INVALID_REQUEST, None),
        (b"[[]]", INVALID_REQUEST, None),
        (b"{}", INVALID_REQUEST, None),
        (b'{"id":1,"method":"ping"}', INVALID_REQUEST, 1),
        (b'{"jsonrpc":2.0,"id":1,"method":"ping"}', INVALID_REQUEST, 1),
        (b'{"jsonrpc":"1.0","id":"a","method":"ping"}', INVALID_REQUEST, "a"),
        (b'{"jsonrpc":"2.0","id":1}', INVALID_REQUEST, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":null}', INVALID_REQUEST, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":""}', INVALID_REQUEST, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":["ping"]}', INVALID_REQUEST, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', INVALID_REQUEST, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":"x"}', INVALID_REQUEST, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":1}}', INVALID_PARAMS, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":null}}', INVALID_PARAMS, 1),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', INVALID_REQUEST, None),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', INVALID_REQUEST, None),
        (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', INVALID_REQUEST, None),
        (b'{"jsonrpc":"2.0","id":[1],"method":"ping"}', INVALID_REQUEST, None),
        (b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}', INVALID_REQUEST, 1),
        (b'{"jsonrpc":"2.0","result":{}}', INVALID_REQUEST, None),
        (b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}', INVALID_REQUEST, None),
        (b'{"jsonrpc":"2.0","id":1,"error":"no"}', INVALID_REQUEST, 1),
    ],
)
def test_json_that_is_no_message_is_refused_with_its_id(body: bytes, code: int, request_id: object) -> None:
    refused = refusal(body)
    assert refused.code == code
    assert same(refused.request_id, request_id)
    assert refused.message


def damaged(place: int, junk: bytes) -> bytes:
    good = call(b'{"name":"echo"}')
    return good[:place] + junk + good[place + 1 :]


@requirement("wire:client:malformed-is-answered")
@given(
    st.binary(max_size=60) | DOCUMENTS.map(str.encode) | st.builds(damaged, st.integers(0, 70), st.binary(max_size=3))
)
def test_any_bytes_are_a_message_or_a_refusal(body: bytes) -> None:
    outcome = attempt(body)
    if isinstance(outcome, BadMessage):
        assert outcome.code in {PARSE_ERROR, INVALID_REQUEST, INVALID_PARAMS}
        assert json.loads(jsonrpc.error_object(outcome.code, outcome.message))["message"] == outcome.message


def test_one_bad_message_refuses_the_array_it_is_in() -> None:
    assert refusal(b'[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2}]').request_id == 2


# What is taken


def test_a_request_has_its_params() -> None:
    assert decode_client(call(b'{"name":"echo","_meta":{"progressToken":0}}')) == ClientRequest(
        1, "tools/call", {"name": "echo", "_meta": {"progressToken": 0}}
    )


@pytest.mark.parametrize("params", [b"", b',"params":null', b',"params":{}'])
def test_absent_params_are_empty(params: bytes) -> None:
    assert request_of(b'{"jsonrpc":"2.0","id":1,"method":"ping"%b}' % params).params == {}


def test_a_message_without_an_id_is_a_notification() -> None:
    body = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
    assert decode_client(body) == ClientNotification("notifications/initialized", {})


def test_an_answer_is_encoded_anew() -> None:
    reply = decode_client(b'{"jsonrpc":"2.0","id":"q","result":{"a":\r\n1,"a":2}}')
    assert isinstance(reply, ClientReply)
    assert (reply.id, reply.result, reply.error) == ("q", Raw(b'{"a":2}'), None)
    reply = decode_client(b'{"jsonrpc":"2.0","id":7,"error":{"code":-1,\n"message":"no"}}')
    assert isinstance(reply, ClientReply)
    assert (reply.id, reply.result, reply.error) == (7, None, Raw(b'{"code":-1,"message":"no"}'))


def test_an_array_is_its_messages_in_order() -> None:
    body = (
        b'[{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","method":"b"},{"jsonrpc":"2.0","id":2,"result":{}}]'
    )
    messages = decode_client(body)
    assert isinstance(messages, list)
    assert [type(message) for message in messages] == [ClientRequest, ClientNotification, ClientReply]


@row(2)
@requirement("wire:ids:types-are-kept")
@pytest.mark.parametrize("text", [b"1", b'"1"', b"1.0", b"0", b'""', b"-7", b'"\xc3\xa9\\n"', b"18446744073709551615"])
def test_an_id_is_answered_as_it_was_sent(text: bytes) -> None:
    request = request_of(b'{"jsonrpc":"2.0","id":%b,"method":"ping"}' % text)
    assert id_bytes(request.id) == text
    assert jsonrpc.result(id_bytes(request.id), b"{}") == b'{"jsonrpc":"2.0","id":%b,"result":{}}' % text


@row(2)
@requirement("wire:ids:types-are-kept")
@given(st.lists(INTEGERS | FLOATS | TEXT, min_size=2, max_size=6))
@example([1, "1", 1.0])
@example([0, "0", 0.0, -0.0, ""])
def test_ids_that_differ_in_value_or_type_never_meet(ids: list[int | float | str]) -> None:
    for one in ids:
        for other in ids:
            assert (id_bytes(one) == id_bytes(other)) == same(one, other)


def test_no_id_is_null() -> None:
    assert id_bytes(None) == b"null"


# Servers


def test_a_servers_message_is_read_down_to_its_envelope() -> None:
    message = decode_server(b'{"jsonrpc":"2.0","id": 3 ,"result": {"deep":[1, 2]} ,"extra":1}')
    assert bytes(message.id) == b"3"
    assert message.own_id == 3
    assert bytes(message.result) == b'{"deep":[1, 2]}'
    assert (message.method, bytes(message.params), bytes(message.error)) == (None, b"", b"")


@pytest.mark.parametrize("text", [b'"1"', b"1.0", b"-1", b"null", b"1e3", b"true", b"99999999999999999999", b"[1]"])
def test_an_id_that_we_did_not_mint_is_not_ours(text: bytes) -> None:
    message = decode_server(b'{"id":%b,"result":{}}' % text)
    assert message.own_id is None
    assert bytes(message.id) == text


def test_a_message_without_an_id_has_none_of_ours() -> None:
    assert decode_server(b'{"method":"notifications/progress"}').own_id is None


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"1", b"<html>", b'{"method":5}', b'{"id":1', b"\xff", b'{"id":' + b"[" * 100_000]
)
def test_what_is_no_message_of_a_server_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_server(body)


@requirement("wire:server:results-pass-untouched")
@given(VALUES, st.sampled_from([None, 1, "\t"]), st.sampled_from(["\n", "\r", "\r\n"]))
def test_a_result_passes_as_it_is_but_for_line_ends(value: Json, indent: int | str | None, line_end: str) -> None:
    sent = json.dumps({"x": value}, ensure_ascii=False, indent=indent).replace("\n", line_end).encode()
    envelope = b'{"jsonrpc":"2.0","id":1,"result":%b}' % sent
    raw = decode_server(envelope).result
    written = jsonrpc.result(b'"a"', raw)
    assert written == b'{"jsonrpc":"2.0","id":"a","result":%b}' % sent.replace(b"\r", b"").replace(b"\n", b"")
    assert same(json.loads(written)["result"], {"x": value})


@requirement("wire:server:results-pass-untouched")
@pytest.mark.parametrize(
    "value",
    [b"123456789012345678901234567890", b"1.10", b"1E2", b'{"a":1,"a":2}', rb'"\u0041\/"', b"[" * 400 + b"]" * 400],
)
def test_what_decoding_would_change_in_a_result_is_not_changed(value: bytes) -> None:
    message = decode_server(b'{"id":1,"result":{"x":%b}}' % value)
    assert jsonrpc.result(b"1", message.result) == b'{"jsonrpc":"2.0","id":1,"result":{"x":%b}}' % value


@requirement("wire:server:results-can-be-read")
@pytest.mark.parametrize("result", [b"[]", b'"x"', b"7", b"true", b"[{}]"])
def test_a_result_that_is_no_object_is_none(result: bytes) -> None:
    assert not decode_server(b'{"id":1,"result":%b}' % result).result


@requirement("wire:client:parts-are-bounded")
@pytest.mark.parametrize("part", [b"[]", b"{}", b'"a"', b'[{"a":[]}]'])
def test_a_message_of_very_many_parts_is_refused_before_it_is_decoded(part: bytes) -> None:
    count = part.count(b"[") + part.count(b"{") + part.count(b'"') // 2
    most = (MAX_PARTS - 10) // count
    body = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":[%b]}}'
    assert isinstance(decode_client(body % b",".join([part] * most)), ClientRequest)
    with pytest.raises(BadMessage, match="200000 arrays"):
        decode_client(body % b",".join([part] * (most + 10)))


def test_brackets_and_quotes_within_a_string_are_no_parts() -> None:
    text = json.dumps('[{"' * MAX_PARTS).encode()
    assert isinstance(
        decode_client(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":%b}}' % text), ClientRequest
    )


@pytest.mark.parametrize(("message", "expected"), [(b"[", True), (b" \n[", True), (b"{", False), (b'"[', False)])
def test_only_an_array_can_be_too_long_an_array(message: bytes, expected: bool) -> None:
    assert is_too_long_an_array(message + b" " * MAX_ARRAY_BYTES) is expected
    assert not is_too_long_an_array(message)


def test_a_result_of_null_has_no_fields() -> None:
    assert bytes(decode_server(b'{"id":1,"result":null}').result) == b"{}"


@requirement("wire:server:results-can-be-read")
@pytest.mark.parametrize(
    "error",
    [
        *(b"null", b"[]", b'"x"', b"7", b"{}", b'{"code":1}', b'{"message":"x"}', b'{"code":"1","message":"x"}'),
        *(b'{"code":true,"message":"x"}', b'{"code":1.5,"message":"x"}', b'{"code":1,"message":null}'),
    ],
)
def test_an_error_that_is_no_error_object_is_none(error: bytes) -> None:
    message = decode_server(b'{"id":1,"error":%b,"result":{"a":1}}' % error)
    assert not message.error
    assert bytes(message.result) == b'{"a":1}'


@requirement("wire:server:results-can-be-read")
@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (rb"\ud83d", rb"\ufffd"),
        (rb"a\uD83D...", rb"a\ufffd..."),
        (rb"\ude00", rb"\ufffd"),
        (rb"\ude00\ud83d", rb"\ufffd\ufffd"),
        (rb"\ud83d\ud83d\ude00", rb"\ufffd\ud83d\ude00"),
        (rb"\ud83d\n", rb"\ufffd\n"),
        (rb"\\ud83d\ud83d\\\\", rb"\\ud83d\ufffd\\\\"),
        (rb"\ud83d\u0041", rb"\ufffd\u0041"),
    ],
)
def test_half_a_surrogate_pair_of_a_server_is_replaced(sent: bytes, told: bytes) -> None:
    message = b'{"id":1,"result":{"a":"%b"}}'
    assert bytes(decode_server(message % sent).result) == b'{"a":"%b"}' % told
    assert [bytes(item) for item in decode_array(b"[%b]" % (message % sent))] == [message % told]


@given(st.text(st.characters(categories=["Cs", "L", "P"]), max_size=20))
def test_whatever_a_server_in_javascript_cuts_can_be_read(text: str) -> None:
    sent = json.dumps({"a": text}).encode()
    assert decode_value(decode_server(b'{"id":1,"result":%b}' % sent).result) is not None


@given(st.binary(max_size=40), st.integers(0, 70_000))
@example(b"\xe2\x82\xac", 65_535)
@example(b"\xe2\x82", 65_536)
@example(b"\xed\xa0\x80", 0)
def test_utf8_is_told_from_other_bytes(text: bytes, shift: int) -> None:
    padded = b" " * shift + text
    try:
        padded.decode()
    except UnicodeDecodeError:
        assert not is_utf8(padded)
    else:
        assert is_utf8(padded)


def test_an_error_of_a_server_passes_on_one_line() -> None:
    message = decode_server(b'{"id":1,"error":{"code":-32042,\n"message":"url",\n"data":{}}}')
    assert jsonrpc.error(b"7", message.error) == (
        b'{"jsonrpc":"2.0","id":7,"error":{"code":-32042,"message":"url","data":{}}}'
    )


def test_an_array_of_a_server_is_its_messages() -> None:
    assert [bytes(item) for item in decode_array(b'[{"id":1}, {"id":2}]')] == [b'{"id":1}', b'{"id":2}']


@pytest.mark.parametrize("body", [b"{}", b"[", b"", b"[" * 100_000])
def test_what_is_no_array_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_array(body)


def test_fields_are_the_servers_bytes() -> None:
    assert {name: bytes(raw) for name, raw in decode_fields(Raw(b'{"a": 1.10, "b": {"c" : 2}}')).items()} == {
        "a": b"1.10",
        "b": b'{"c" : 2}',
    }


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"nope", b"[" * 100_000])
def test_fields_and_values_that_cannot_be_read_are_empty(body: bytes) -> None:
    assert decode_fields(body) == {}
    assert decode_value(body) in (None, [])


# What we write


def test_messages_of_ours_stand_on_one_line() -> None:
    assert jsonrpc.request(1, "ping") == b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    assert jsonrpc.request("a", "x", {"t": "a\nb"}) == b'{"jsonrpc":"2.0","id":"a","method":"x","params":{"t":"a\\nb"}}'
    assert jsonrpc.notification("n") == b'{"jsonrpc":"2.0","method":"n"}'
    assert jsonrpc.notification("n", {"a": None}) == b'{"jsonrpc":"2.0","method":"n","params":{"a":null}}'
    assert jsonrpc.error_object(-1, "no") == b'{"code":-1,"message":"no"}'
    assert jsonrpc.error_object(-1, "no", {"a": 1}) == b'{"code":-1,"message":"no","data":{"a":1}}'
    assert jsonrpc.array([b"1", b"2"]) == b"[1,2]"


@given(PARAMS, TEXT)
def test_a_request_of_ours_is_a_request_to_others(params: dict[str, Json], method: str) -> None:
    assert decode_client(jsonrpc.request(5, method or "x", params)) == ClientRequest(5, method or "x", params)
