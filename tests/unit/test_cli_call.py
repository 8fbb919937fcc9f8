"""The parts of `holdfast tools` and `holdfast call`: words in, words out."""

from __future__ import annotations

import asyncio
import io
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec import Raw
from rich.console import Console
from typer.core import TyperGroup
from typer.main import get_command

from holdfast.call import Ask, AskId, Json, RpcError
from holdfast.cli.arguments import parse_arguments
from holdfast.cli.contents import describe_result, for_terminal, readable_size
from holdfast.cli.elicitation import Questions, parse_field
from holdfast.cli.failures import unanswered, unknown_tool
from holdfast.cli.main import app
from holdfast.cli.progress import CallView
from holdfast.cli.target import find_server
from holdfast.cli.tools import describe, first_sentence
from holdfast.errors import ConfigError
from holdfast.testing.clock import ManualClock
from holdfast.upstream.transport import Fault, FaultKind
from holdfast.wire import jsonrpc

ROOT: Final = Path(__file__).resolve().parent.parent.parent
URL: Final = "http://127.0.0.1:3000/mcp"


# Arguments.


def parsed(*words: str, stdin: bytes = b"") -> dict[str, Json]:
    return parse_arguments(words, lambda: stdin)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("x=1", 1),
        ("x=1.5", 1.5),
        ("x=true", True),
        ("x=null", None),
        ("x=", ""),
        ("x=two words", "two words"),
        ('x="1"', "1"),
        ("x=[1, 2]", [1, 2]),
        ("x=a=b", "a=b"),
        ("x={not json", "{not json"),
        ("x=two\nlines", "two\nlines"),
        ("x=NaN", "NaN"),
    ],
)
def test_a_value_is_json_where_it_can_be_read_as_json(word: str, value: Json) -> None:
    assert parsed(word) == {"x": value}


def test_objects_pairs_and_standard_input_are_joined_in_their_order() -> None:
    assert parsed('{"a": 1, "b": "x=y"}', "a=2", "-", stdin=b'{"c": 3}') == {"a": 2, "b": "x=y", "c": 3}
    assert parsed() == {}


@pytest.mark.parametrize("word", ["word", "[1]", '{"a"', "7", "=x", "x=123456789012345678901234567890", "-"])
def test_what_is_no_argument_is_refused(word: str) -> None:
    with pytest.raises(ConfigError):
        parsed(word, stdin=b"[]")


# The server.


def test_the_server_is_the_first_word_or_what_follows_the_dashes(tmp_path: Path) -> None:
    def find(
        *words: str, dashed: tuple[str, ...] | None = None, config: Path | None = None
    ) -> tuple[object, list[str]]:
        server, rest = find_server(words, dashed, config=config, headers=(), key=None)
        return server.url or server.command, rest

    (tmp_path / "s.yaml").write_text(f"servers: {{git: {{url: {URL}}}}}")
    assert find(URL, "tool", "a=1") == (URL, ["tool", "a=1"])
    assert find("tool", "a=1", dashed=("sh", "-c", "x")) == (("sh", "-c", "x"), ["tool", "a=1"])
    assert find("tool", dashed=(URL,)) == (URL, ["tool"])
    assert find("git", "tool", config=tmp_path / "s.yaml") == (URL, ["tool"])


def test_what_is_given_for_the_call_wins_over_the_settings_file(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(f"servers: {{git: {{url: {URL}, headers: {{authorization: old, x-a: kept}}}}}}")
    server, _ = find_server(["git"], None, config=path, headers=["X-B=added"], key="new")
    headers = {name: value.get_secret_value() for name, value in server.headers.items()}
    assert headers == {"x-a": "kept", "X-B": "added", "Authorization": "Bearer new"}


# What is shown of a result.


def test_a_result_is_its_texts_and_a_line_for_each_other_content() -> None:
    content: list[Json] = [
        {"type": "text", "text": "one\ntwo"},
        {"type": "image", "data": "AAAA" * 500, "mimeType": "image/png"},
        {"type": "audio", "data": "AAA=", "mimeType": "audio/wav"},
        {"type": "resource_link", "uri": "file:///a", "name": "a", "size": 2_500_000},
        {"type": "resource", "resource": {"uri": "memo://b", "mimeType": "text/plain", "text": "é"}},
        {"type": "resource", "resource": {"uri": "memo://c", "blob": "AAAA"}},
        {"type": "future", "value": 1},
        {"no": "type"},
    ]
    assert describe_result({"content": content, "structuredContent": {"hidden": True}}).split("\n") == [
        "one",
        "two",
        "[image, image/png, 1.5 KB]",
        "[audio, audio/wav, 2 bytes]",
        "[link, file:///a, a, 2.5 MB]",
        "[resource, memo://b, text/plain, 2 bytes]",
        "[resource, memo://c, 3 bytes]",
        "[future]",
        "[content of no type]",
    ]


def test_structured_content_is_shown_where_there_is_no_text() -> None:
    assert describe_result({"content": [], "structuredContent": {"é": [1]}}) == '{\n  "é": [\n    1\n  ]\n}'
    assert describe_result({}) == ""
    assert describe_result({"content": "wrong"}) == ""


def test_a_terminal_gets_no_control_characters() -> None:
    assert for_terminal("a\x1b[2Jb\n\tc\x07") == "a b\n        c "


@pytest.mark.parametrize(("size", "words"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 KB"), (5e12, "5000.0 GB")])
def test_sizes_are_readable(size: float, words: str) -> None:
    assert readable_size(size) == words


# The list of tools.


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Adds. Then more.", "Adds."),
        ("Adds numbers, e.g. 1 and 2. Then more.", "Adds numbers, e.g. 1 and 2."),
        ("Adds\nnumbers", "Adds numbers"),
        ("First paragraph\n\nSecond.", "First paragraph"),
        ("Reads file.txt and stops! Really.", "Reads file.txt and stops!"),
        ("", ""),
    ],
)
def test_a_tool_is_described_by_its_first_sentence(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence


def test_a_tool_that_says_little_or_nonsense_is_listed_all_the_same() -> None:
    assert describe(Raw(b'{"name":"a","title":"A title"}')) == ("a", "", "A title")
    assert describe(Raw(b'{"name":"a\\u001b[1m","inputSchema":{"required":["k"],"properties":[]}}')) == (
        "a",
        "k*",
        "",
    )
    assert describe(Raw(b"7")) == ("?", "", "")


# Failures.


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ({"code": -32602, "message": "No such\nthing."}, "holdfast: No such thing. (-32602)"),
        ({"code": -32000}, "holdfast: the server answered with an error (-32000)"),
        (
            {"code": -31006, "message": "Lost.", "data": {"holdfast": {"delivery": "refused", "retryable": True}}},
            "holdfast: Lost. (-31006; not executed; the same call may be sent again)",
        ),
        (
            {"code": -31002, "message": "Cut.", "data": {"holdfast": {"delivery": "news", "retryable": False}}},
            "holdfast: Cut. (-31002; find out before repeating)",
        ),
        ({"code": -31002, "message": "Another's.", "data": 7}, "holdfast: Another's. (-31002)"),
    ],
)
def test_an_error_is_one_line(error: dict[str, Any], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert unanswered("server", RpcError(Raw(jsonrpc.encode(error)))) == 1
    assert capsys.readouterr().err == f"{line}\n"


def test_a_refused_key_is_told_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    refused = Fault(FaultKind.UNAUTHORIZED, "it answered 401 Unauthorized: A key is needed.")
    assert unanswered("server", refused) == 3
    assert capsys.readouterr().err == (
        "holdfast: server: it answered 401 Unauthorized: A key is needed; give a credential with --key or --header\n"
    )


def test_of_many_tools_the_ten_most_similar_are_named() -> None:
    known = [f"other{number}" for number in range(40)]
    assert unknown_tool("cuont", "notes", ["count", "add"]) == "notes has no tool 'cuont'; it has count, add"
    words = unknown_tool("cuont", "notes", [*known, "count"])
    assert words.startswith("notes has no tool 'cuont'; it has count, other")
    assert words.endswith(" and 31 more, which holdfast tools lists")


# Questions.


class Person:
    """Types prepared lines; what they saw is in `screen`."""

    def __init__(self, *lines: str) -> None:
        self.screen = io.StringIO()
        self._lines = list(lines)
        console = Console(file=self.screen, width=200)
        view = CallView(console, "tool", ManualClock(), None)
        self._questions = Questions(console, "shop 1.0", view, self._read)

    async def _read(self) -> str | None:
        return f"{self._lines.pop(0)}\n" if self._lines else None

    async def answer(self, properties: Mapping[str, Any], *required: str) -> Json:
        schema = {"type": "object", "properties": properties, "required": list(required)}
        params = Raw(jsonrpc.encode({"message": "What?", "requestedSchema": schema}))
        async with asyncio.timeout(60):
            return jsonrpc.decode_value(await self._questions(Ask(AskId(1), "elicitation/create", params)))


SIZES: Final = {"type": "string", "title": "Size", "enum": ["s", "l"], "enumNames": ["Small", "Large"], "default": "s"}
MANY: Final = {"type": "integer", "minimum": 1, "maximum": 9, "description": "How many?"}
AGREES: Final = {"type": "boolean", "default": False}


async def test_each_field_is_asked_with_what_it_takes() -> None:
    person = Person("Large", "3", "yes")
    answer = await person.answer({"size": SIZES, "many": MANY, "agrees": AGREES}, "many")
    assert answer == {"action": "accept", "content": {"size": "l", "many": 3, "agrees": True}}
    screen = person.screen.getvalue()
    assert screen.startswith("shop 1.0 asks: What?\n")
    for words in (
        "  Size (one of s = Small, l = Large) [s]: ",
        "  How many?\n",
        "  many (a whole number, 1 to 9, required): ",
        "  agrees (yes or no) [no]: ",
    ):
        assert words in screen


async def test_an_empty_line_takes_the_default_or_leaves_the_field_out() -> None:
    answer = await Person("", "", "").answer({"size": SIZES, "many": MANY, "agrees": AGREES})
    assert answer == {"action": "accept", "content": {"size": "s", "agrees": False}}


async def test_an_empty_line_for_what_is_required_declines() -> None:
    assert await Person("l", "").answer({"size": SIZES, "many": MANY}, "many") == {"action": "decline"}


async def test_a_wrong_answer_is_asked_again() -> None:
    person = Person("many", "10", "9")
    assert await person.answer({"many": MANY}) == {"action": "accept", "content": {"many": 9}}
    assert person.screen.getvalue().count("It takes a whole number, 1 to 9.") == 2


async def test_the_end_of_the_input_cancels() -> None:
    assert await Person("l").answer({"size": SIZES, "many": MANY}) == {"action": "cancel"}


async def test_a_question_without_fields_wants_a_yes() -> None:
    assert await Person("y").answer({}) == {"action": "accept", "content": {}}
    assert await Person("").answer({}) == {"action": "decline"}


@pytest.mark.parametrize(
    ("typed", "field", "value"),
    [
        ("0.5", {"type": "number"}, 0.5),
        ("N", {"type": "boolean"}, False),
        ("a, B", {"type": "array", "items": {"anyOf": [{"const": "a"}, {"const": "b", "title": "B"}]}}, ["a", "b"]),
        ("two", {"type": "string", "oneOf": [{"const": "2", "title": "Two"}]}, "2"),
    ],
)
def test_what_is_typed_becomes_the_type_of_its_field(typed: str, field: dict[str, Json], value: Json) -> None:
    assert parse_field(typed, field) == value


@pytest.mark.parametrize(
    ("typed", "field", "takes"),
    [
        ("x", {"type": "number", "minimum": 0}, "a number, at least 0"),
        ("nan", {"type": "number"}, "a number"),
        ("1.5", {"type": "integer", "maximum": 9}, "a whole number, at most 9"),
        ("x", {"type": "boolean"}, "yes or no"),
        ("x", {"enum": ["a", "b"]}, "one of a, b"),
        ("a", {"type": "array", "items": {"enum": ["a"]}, "minItems": 2}, "any of a, with commas between, at least 2"),
        ("abc", {"type": "string", "maxLength": 2}, "text, at most 2 characters"),
    ],
)
def test_what_a_field_does_not_take_is_refused_with_what_it_takes(
    typed: str, field: dict[str, Json], takes: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(takes)}$"):
        parse_field(typed, field)


# Progress.


def view(*, terminal: bool, clock: ManualClock | None = None) -> tuple[CallView, io.StringIO]:
    screen = io.StringIO()
    console = Console(file=screen, width=80, force_terminal=terminal, color_system=None)
    return CallView(console, "tool", clock or ManualClock(), None), screen


def update(**fields: Json) -> dict[str, Raw]:
    return {name: Raw(jsonrpc.encode(value)) for name, value in fields.items()}


def test_progress_without_a_terminal_repeats_no_line() -> None:
    shown, screen = view(terminal=False)
    shown.start()
    for fields in ({"progress": 1}, {"progress": 1}, {"progress": 2, "message": "a\x1b\nb"}, {"progress": "x"}):
        shown.progress(update(**fields))
    shown.progress(update(progress=9, total=8))
    shown.end()
    assert screen.getvalue() == "1\n2 a b\n100%\n"


def test_what_a_gateway_says_of_the_wait_is_shown_without_its_number() -> None:
    shown, screen = view(terminal=False)
    shown.start()
    shown.progress(update(progress=1e-6, message="Connecting to notes."))
    shown.progress(update(progress=0, message="begins"))
    shown.progress(update(progress=1, total=2, message="reads"))
    shown.end()
    assert screen.getvalue() == "Connecting to notes.\n0 begins\n50% reads\n"


def test_a_quick_call_shows_no_bar_and_a_slow_one_does() -> None:
    for seconds, is_shown in ((0.3, False), (0.5, True)):
        clock = ManualClock()
        shown, screen = view(terminal=True, clock=clock)
        shown.start()
        clock.advance(seconds)
        shown.end()
        assert ("tool" in screen.getvalue()) == is_shown


def test_once_the_call_has_ended_no_bar_comes_back() -> None:
    clock = ManualClock()
    shown, screen = view(terminal=True, clock=clock)
    shown.end()
    shown.start()
    clock.advance(10)
    assert screen.getvalue() == ""


# The documentation.


def shown_commands() -> Iterator[str]:
    """Every `holdfast tools` and `holdfast call` in the blocks of shell commands, and in the help."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for block in re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
            yield from re.findall(r"^holdfast (?:tools|call) .+$", block, re.MULTILINE)
    for command in ("tools", "call"):
        yield from re.findall(rf"holdfast {command} .+", str(options_of(command).epilog))


def options_of(name: str) -> Any:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    return group.commands[name]


@pytest.mark.parametrize("command", sorted(set(shown_commands())))
def test_every_command_that_is_shown_is_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in re.findall(r"\$\{(\w+)\}", command):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setattr("shutil.which", str)
    name, *words = shlex.split(command.partition(" | ")[0], comments=True)[1:]
    with options_of(name).make_context(name, words) as context:
        given: list[str] = context.params["server" if name == "tools" else "words"] or []
        dashed = context.meta.get("holdfast.after_dashes")
        if context.params["config"] is None:
            _, given = find_server(
                given, dashed, config=None, headers=context.params["header"] or (), key=context.params["key"]
            )
        else:
            given = given[1:]
    assert bool(given) == (name == "call")
    parse_arguments(given[1:], lambda: b"{}")


@pytest.mark.parametrize("name", ["tools", "call"])
def test_every_option_is_documented_and_no_other(name: str) -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    section = re.split(rf"^## `holdfast {name}`$", page, flags=re.MULTILINE)[1].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `(--[\w-]+)", section, re.MULTILINE))
    options = {word for parameter in options_of(name).params for word in parameter.opts if word.startswith("--")}
    assert documented == options | {"--help"}
