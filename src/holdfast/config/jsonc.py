"""JSON as people and editors write it: comments and trailing commas are allowed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

from holdfast.config.source import Findings, Item, Scalar

MAX_DEPTH: Final = 64
_TOKEN: Final = re.compile(
    r"""(?P<skip>[ \t\r\n\ufeff]+|//[^\n]*|/\*.*?\*/)
      | (?P<string>"(?:[^"\\\x00-\x1f]|\\.)*")
      | (?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w.]))
      | (?P<word>(?:true|false|null)(?!\w))
      | (?P<mark>[{}\[\],:])""",
    re.VERBOSE | re.DOTALL,
)
_WORDS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None}


class _Malformed(Exception):
    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line
        self.what = what


@dataclass(frozen=True, slots=True)
class _Token:
    """Texts keep their quotes, so that none is taken for a mark."""

    kind: str
    text: str
    line: int


def parse_jsonc(text: str, problems: Findings) -> Item | None:
    """The tree of a JSON file; None where it is empty or unreadable."""
    try:
        tokens = _tokens(text)
        if len(tokens) == 1:
            return None
        return _Reader(tokens, problems).document()
    except _Malformed as error:
        problems.add(error.line, (), f"is no JSON: {error.what}")
    return None


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _Malformed(line, _unreadable(text[at : at + 40]))
        kind = match.lastgroup or ""
        if kind != "skip":
            tokens.append(_Token(kind, match.group(), line))
        line += match.group().count("\n")
        at = match.end()
    return [*tokens, _Token("end", "", line)]


def _unreadable(rest: str) -> str:
    if rest.startswith('"'):
        return "the quote that opens here is not closed in its line, or a \\ in it is not written \\\\"
    if rest.startswith("/*"):
        return "the comment that opens here is not closed"
    if rest.startswith(("'", "`", "\u201c", "\u201d")):
        return 'texts and names stand in "double quotes"'
    word = re.match(r"[\w$.-]+", rest)
    if word is not None and re.match(r"[A-Za-z_$]", rest):
        return 'a text or name without "quotes"'
    if word is not None:
        return "a number that JSON does not know"
    return f"{rest[0]!r} has no place here"


class _Reader:
    """Recursive descent over the tokens; lines are those of keys, as in YAML."""

    def __init__(self, tokens: list[_Token], problems: Findings) -> None:
        self._tokens = tokens
        self._problems = problems
        self._at = 0
        self._depth = 0

    def document(self) -> Item:
        item = self._value((), None)
        if self._next.kind != "end":
            raise _Malformed(self._next.line, "something stands after the end")
        return item

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next
        self._at += 1
        return token

    def _value(self, where: tuple[str, ...], line: int | None) -> Item:
        token = self._take()
        line = token.line if line is None else line
        match token.kind, token.text:
            case "string", text:
                value = self._string(token)
                return Item(line, value, value)
            case "number", text:
                number: Scalar = json.loads(text)
                return Item(line, number, text)
            case "word", text:
                return Item(line, _WORDS[text], text)
            case _, "{":
                return Item(line, self._nested(token, where))
            case _, "[":
                return Item(line, self._list(token, where))
            case _:
                self._at -= 1
                raise self._expected("a value")

    def _nested(self, opening: _Token, where: tuple[str, ...]) -> dict[str, Item]:
        entries: dict[str, Item] = {}
        self._enter(opening)
        while self._next.text != "}":
            key = self._take()
            if key.kind != "string":
                self._at -= 1
                raise self._expected('a "name"' + (" or }" if key.kind != "end" else ""), opening)
            name = self._string(key)
            if self._next.text != ":":
                raise self._expected("a : after the name")
            self._at += 1
            item = self._value((*where, name), key.line)
            if name in entries:
                self._problems.add(key.line, (*where, name), f"stands twice; the first is in line {entries[name].line}")
            else:
                entries[name] = item
            self._separate("}", opening)
        self._leave()
        return entries

    def _list(self, opening: _Token, where: tuple[str, ...]) -> list[Item]:
        items: list[Item] = []
        self._enter(opening)
        while self._next.text != "]":
            items.append(self._value((*where, str(len(items) + 1)), None))
            self._separate("]", opening)
        self._leave()
        return items

    def _separate(self, closing: str, opening: _Token) -> None:
        if self._next.text == ",":
            self._at += 1
        elif self._next.text != closing:
            if self._next.kind in {"string", "number", "word"}:
                raise _Malformed(self._tokens[self._at - 1].line, "a comma is missing at the end")
            raise self._expected(f"a comma or {closing}", opening)

    def _enter(self, opening: _Token) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _Malformed(opening.line, "it is nested too deeply")

    def _leave(self) -> None:
        self._depth -= 1
        self._at += 1

    def _expected(self, what: str, opening: _Token | None = None) -> _Malformed:
        token = self._next
        if token.kind == "end":
            if opening is None:
                return _Malformed(token.line, f"{what} is missing at the end of the file")
            return _Malformed(opening.line, f"the {opening.text} that opens here is not closed")
        found = token.text if token.kind == "mark" else f"a {token.kind}"
        return _Malformed(token.line, f"{what} is expected, and {found} stands there")

    def _string(self, token: _Token) -> str:
        try:
            text: str = json.loads(token.text)
        except ValueError:
            raise _Malformed(token.line, "a \\ stands for itself only as \\\\ (in Windows paths, write C:/…)") from None
        return text
