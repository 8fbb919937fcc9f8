"""A settings file as a tree that knows its lines, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from holdfast.errors import ConfigError

Scalar = str | int | float | bool | None

MAX_BYTES: Final = 4 * 1024 * 1024
MAX_ITEMS: Final = 100_000
"""Aliases of aliases make a small file a large tree."""


def _number(text: str) -> Scalar:
    """Without the octals and sexagesimals of YAML 1.1, which nobody means."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


_PLAIN_TAGS: Final[dict[str, Callable[[str], Scalar]]] = {
    "tag:yaml.org,2002:int": _number,
    "tag:yaml.org,2002:float": _number,
    "tag:yaml.org,2002:bool": lambda text: text.lower() in {"true", "yes", "on"},
    "tag:yaml.org,2002:null": lambda _: None,
}
_TEXT_TAGS: Final = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "timestamp", "binary", "value", "merge"))
_MERGE: Final = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True)
class Item:
    """One value of the file. Its text form holds no value: that may be a secret."""

    line: int
    """Of its key, or its own where it has none."""
    value: Scalar | list[Item] | dict[str, Item] = field(repr=False)
    text: str = field(default="", repr=False)
    """A scalar as it was written: `0123`, where the value is 83."""

    def get(self, key: str) -> Item | None:
        """The entry `key`, where this is a mapping that has it."""
        return self.value.get(key) if isinstance(self.value, dict) else None

    def nearest(self, keys: Iterable[str]) -> Item:
        """What the keys lead to, or the last on the way that is there; a list's entries count from 1."""
        item = self
        for key in keys:
            match item.value:
                case dict() if key in item.value:
                    item = item.value[key]
                case list() if key.isdecimal() and 0 < int(key) <= len(item.value):
                    item = item.value[int(key) - 1]
                case _:
                    break
        return item

    @property
    def kind(self) -> str:
        """What it is, in words."""
        match self.value:
            case dict():
                return "a mapping"
            case list():
                return "a list"
            case None:
                return "empty"
            case str():
                return "a text"
            case bool():
                return "true or false"
            case _:
                return "a number"


class Findings:
    """What there is to say about a file, in the order of its lines. Nothing in it is a secret."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._found: list[tuple[int, str, str]] = []
        self._written: dict[str, str] = {}

    def rename(self, where: Iterable[str], written: Iterable[str]) -> None:
        """Call the key `where`, and what is below it, as the file does."""
        self._written[".".join(where)] = ".".join(written)

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, line: int, where: Iterable[str], what: str) -> None:
        """Say `what` of the key `where` at `line`."""
        self._found.append((line, ".".join(where), what))

    def lines(self) -> list[str]:
        """One line each: file, line, key and sentence."""
        found = sorted(dict.fromkeys(self._found), key=lambda finding: finding[0])
        return [
            ": ".join(part for part in (f"{self._file}:{line}", _one_line(self._as_written(key)), what) if part)
            for line, key, what in found
        ]

    def _as_written(self, key: str) -> str:
        above = (place for place in self._written if key == place or key.startswith(place + "."))
        place = max(above, key=len, default="")
        return self._written[place] + key[len(place) :] if place else key

    def has(self, where: Iterable[str]) -> bool:
        """Whether something was said of the key `where`."""
        key = ".".join(where)
        return any(found == key for _, found, _ in self._found)

    def error(self, paths: Iterable[Path] = ()) -> ConfigError:
        """All lines as one error; `paths` are the files that they are about."""
        return ConfigError("\n".join(self.lines()), paths=tuple(dict.fromkeys(paths)))


def _one_line(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode()


_HALF: Final = re.compile("[\ud800-\udfff]")
_PAIRS: Final = r"half of a character: \ud800 to \udfff go in pairs"


def find_halves(item: Item, problems: Findings, where: tuple[str, ...] = ()) -> bool:
    r"""Whether anything holds half of a surrogate pair, which `"\ud800"` makes and nothing can encode; it is noted."""
    entries: dict[str, Item] = {}
    match item.value:
        case dict():
            entries = item.value
        case list():
            entries = {str(number): each for number, each in enumerate(item.value, 1)}
        case str() if _HALF.search(item.value):
            problems.add(item.line, where, f"holds {_PAIRS}")
            return True
        case _:
            pass
    found = False
    for name, each in entries.items():
        if _HALF.search(name):
            problems.add(each.line, where, f"has a name with {_PAIRS}")
            found = True
        found |= find_halves(each, problems, (*where, name))
    return found


def read_text(path: Path) -> str:
    """The text of a settings file. Raises `ConfigError`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: has {len(content):,} bytes, which is no settings file")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{path}:1: is written in UTF-16; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: is not UTF-8; save it as UTF-8") from None


def parse_yaml(text: str, problems: Findings) -> Item | None:
    """The tree of a YAML file; None where it is empty or unreadable. Tags cannot make objects."""
    loader: yaml.SafeLoader | None = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        return None if node is None else _Tree(problems).item(node, node.start_mark.line + 1, ())
    except yaml.MarkedYAMLError as error:
        line, what = _syntax(error, text)
        problems.add(line, (), what)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problems.add(line, (), "holds a control character")
    except RecursionError:
        problems.add(1, (), "is nested too deeply")
    finally:
        if loader is not None:
            loader.dispose()
    return None


class _Tree:
    """Makes items of YAML nodes."""

    def __init__(self, problems: Findings) -> None:
        self._problems = problems
        self._open: set[int] = set()
        self._count = 0

    def item(self, node: yaml.Node, line: int, where: tuple[str, ...]) -> Item:
        self._count += 1
        if self._count > MAX_ITEMS:
            raise yaml.MarkedYAMLError(problem="too many values", problem_mark=node.start_mark)
        if id(node) in self._open:
            self._problems.add(line, where, "contains itself: this alias (*) stands for what is around it")
            return Item(line, None)
        if isinstance(node, yaml.ScalarNode):
            return Item(line, self._scalar(node, line, where), node.value)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return Item(line, self._mapping(node, where))
            children: list[yaml.Node] = node.value
            rows = [self.item(n, n.start_mark.line + 1, (*where, str(i))) for i, n in enumerate(children, 1)]
            return Item(line, rows)
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: yaml.ScalarNode, line: int, where: tuple[str, ...]) -> Scalar:
        text: str = node.value
        if node.tag in _PLAIN_TAGS:
            return _PLAIN_TAGS[node.tag](text)
        if node.tag not in _TEXT_TAGS:
            what = "tags are not understood; quote a value that begins with !"
            self._problems.add(line, where, f"{what}; a secret's file is {{file: PATH}}, a variable ${{NAME}}")
        return text

    def _mapping(self, node: yaml.MappingNode, where: tuple[str, ...]) -> dict[str, Item]:
        merged: dict[str, Item] = {}
        entries: dict[str, Item] = {}
        for key, child in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._problems.add(line, where, "a name is expected here; a value that begins with { or [ needs quotes")
                continue
            name: str = key.value
            if key.tag == _MERGE:
                merged = self._merged(child, where) | merged
            elif name in entries:
                self._problems.add(line, (*where, name), f"stands twice; the first is in line {entries[name].line}")
            else:
                entries[name] = self.item(child, line, (*where, name))
        return merged | entries

    def _merged(self, node: yaml.Node, where: tuple[str, ...]) -> dict[str, Item]:
        nodes: list[yaml.Node] = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Item] = {}
        for each in nodes:
            value = self.item(each, each.start_mark.line + 1, where).value
            if isinstance(value, dict):
                merged = value | merged
            else:
                self._problems.add(each.start_mark.line + 1, (*where, "<<"), "takes a mapping, such as *defaults")
        return merged


_QUOTE_VARIABLE: Final = 'is no YAML: inside [ ] and { } a variable needs quotes: "${NAME}"'
_SYNTAX: Final = (
    # What PyYAML says, whether the place where it began is meant, and what usually mends it.
    ("quoted scalar", True, "is no YAML: the quote that opens here is not closed"),
    ("character '\\t'", False, "is no YAML: it is indented with a tab; YAML takes spaces"),
    ("cannot start any token", False, "is no YAML: a value that begins with {character} needs quotes"),
    (
        "mapping values are not",
        False,
        "is no YAML: a second ': ' in one line; quote the value, or mend the indentation",
    ),
    ("could not find expected ':'", True, "is no YAML: a ': ' is missing after the name"),
    (
        "flow sequence",
        True,
        "is no YAML: the [ that opens here is not closed, or a comma before line {line} is missing",
    ),
    ("flow mapping", True, "is no YAML: the { that opens here is not closed, or a comma before line {line} is missing"),
    ("single document", False, "a second document begins with ---; a settings file has one"),
    ("undefined alias", False, "no anchor (&) has the name of this alias; a value that begins with * needs quotes"),
    ("block", False, "is no YAML: its indentation fits nothing above (or a quote or bracket before it is wrong)"),
)


def _syntax(error: yaml.MarkedYAMLError, text: str) -> tuple[int, str]:
    """The line and the sentence of a syntax error. Neither quotes the file, which may hold secrets."""
    problem, context = error.problem or "cannot be read", error.context or ""
    mark = error.problem_mark or error.context_mark
    line = 1 if mark is None else mark.line + 1
    started = error.context_mark.line + 1 if error.context_mark is not None else line
    rows = text.splitlines()
    written = rows[line - 1] if line <= len(rows) else ""
    if "flow" in context and "${" in written:
        return line, _QUOTE_VARIABLE
    if "\t" in written[: len(written) - len(written.lstrip())]:
        problem = "character '\\t'"
    for needle, is_start, sentence in _SYNTAX:
        if needle in problem or needle in context:
            token = re.search(r"character '(.)'", problem)
            character = token.group(1) if token is not None else "it"
            filled = sentence.replace("{line}", str(line)).replace("{character}", character)
            return started if is_start else line, filled
    return line, "is no YAML: " + re.sub(r"'[^'<]{2,}'", "'…'", problem)
