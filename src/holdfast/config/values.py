"""The values of a settings file: variables filled in, secrets fetched, mistakes said so that they can be mended."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr
from pydantic_core import ErrorDetails

from holdfast.config.expand import Variables
from holdfast.config.settings import ALIAS_PATTERN, PREFIX_PATTERN, SEPARATOR_PATTERN
from holdfast.config.source import Findings, Item
from holdfast.errors import ConfigError

Where = tuple[str, ...]

MAX_SECRET_BYTES: Final = 64 * 1024
PATTERNS_IN_WORDS: Final[Mapping[str, str]] = {
    ALIAS_PATTERN: "letters, digits, dashes and underscores, 64 at most",
    PREFIX_PATTERN: "letters, digits, dashes and underscores, 32 at most, the first a letter or digit",
    SEPARATOR_PATTERN: "letters, digits, dashes and underscores, 4 at most",
}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?) *(ms|s|sec|m|min|h|d)[a-z]*", re.IGNORECASE)
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?) *([kmg])(?:i?b)?", re.IGNORECASE)
_SIZES: Final = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_UNITS: Final = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def guess(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)`, or nothing where no known word is near."""
    folded = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower().replace("-", "_"), folded, 1, 0.6)
    near = near or difflib.get_close_matches(word.lower(), folded, 1, 0.6)
    return f" (did you mean {folded[near[0]]}?)" if near else ""


def shown(item: Item) -> str:
    """A value that is no secret, as it was written, so that no variable's value is shown."""
    if isinstance(item.value, dict | list):
        return item.kind
    if item.value is None:
        return "nothing"
    text = item.text if item.text.isprintable() else item.text.encode("unicode_escape").decode()
    quoted = f"'{text[:60]}…'" if len(text) > 60 else f"'{text}'"
    return f"what the environment gives for {quoted}" if "${" in text else quoted


def shown_url(item: Item) -> str:
    """The scheme and host of a URL as written: what follows may be a credential, as may what stands before an @."""
    match = re.match(r"(?:[A-Za-z]+:/*)?[^/?#@]*(?=[/?#]|$)", item.text)
    return "this" if match is None or not match.group() else shown(Item(item.line, item.value, match.group()))


@dataclass(frozen=True, slots=True)
class Values:
    """Reads values of one file."""

    folder: Path
    """The settings file's own; relative paths start here."""
    variables: Variables
    problems: Findings
    notes: Findings
    files: list[Path] = field(default_factory=list[Path])
    """The files of secrets that were read so far, or should have been."""

    def unknown(
        self, item: Item, where: Where, known: Iterable[str], hints: Mapping[str, str], elsewhere: Mapping[str, str]
    ) -> None:
        """Name the keys of a mapping that are none of `known`, with what was probably meant.

        Args:
            item: the mapping; anything else is passed over.
            where: its key.
            known: what it may hold.
            hints: what to say of keys that other programs know.
            elsewhere: keys that belong to another place of the file, and which.
        """
        names = list(known)
        for key, entry in item.value.items() if isinstance(item.value, dict) else ():
            if key in names:
                continue
            hint = hints.get(key.lower().replace("-", "_"))
            if hint is None and key in elsewhere:
                hint = f"belongs to {elsewhere[key]}"
            near = guess(key, names)
            what = f"unknown key{near}" if near else f"unknown key; known are {', '.join(names)}"
            self.problems.add(entry.line, (*where, key), f"unknown key: {hint}" if hint else what)

    def mapping(self, item: Item, where: Where, what: str) -> dict[str, Item]:
        """The entries of a mapping; empty after the problem was noted."""
        if isinstance(item.value, dict):
            return item.value
        self.problems.add(item.line, where, f"takes {what}; {_stands(item)}")
        return {}

    def text(self, item: Item, where: Where, what: str = "a text") -> str | None:
        """A text with variables filled in; a number stays as it was written."""
        if self.problems.has(where):
            return None
        if isinstance(item.value, dict | list) or item.value is None:
            self.problems.add(item.line, where, f"takes {what}; {_stands(item)}")
            return None
        return self._fill(item, where)

    def texts(self, item: Item, where: Where, what: str) -> list[str] | None:
        """A list of texts."""
        if not isinstance(item.value, list):
            self.problems.add(item.line, where, f"takes {what}; {_stands(item)}")
            return None
        read = [self.text(each, (*where, str(number))) for number, each in enumerate(item.value, 1)]
        return [text for text in read if text is not None] if None not in read else None

    def secret(self, item: Item, where: Where) -> SecretStr | None:
        """A text, or what the file of `{file: PATH}` holds without the line end after it."""
        if isinstance(item.value, dict):
            if item.value.keys() != {"file"}:
                self.problems.add(item.line, where, "takes a text or {file: PATH}, and nothing besides")
                return None
            return self.secret_file(item.value["file"], (*where, "file"))
        text = self.text(item, where, "a text or {file: PATH}")
        if text is None:
            return None
        bare = re.search(r"\$([A-Za-z_][A-Za-z0-9_]*)", item.text)
        if bare is not None and bare.group(1) in self.variables.environment:
            name = bare.group(1)
            self.notes.add(item.line, where, f"${name} is sent as it stands; the variable's value is ${{{name}}}")
        return SecretStr(text)

    def secret_file(self, item: Item, where: Where) -> SecretStr | None:
        """What a file holds without the line end after it."""
        name = self.text(item, where, "a path")
        if name is None:
            return None
        path = self.folder / Path(name).expanduser()
        self.files.append(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            reason = (error.strerror or "not readable").lower()
            looked = "" if Path(item.text).is_absolute() else "; relative paths start at the settings file"
            self.problems.add(item.line, where, f"cannot read {shown(item)}: {reason}{looked}")
            return None
        if len(content) > MAX_SECRET_BYTES:
            self.problems.add(item.line, where, f"{shown(item)} has {len(content):,} bytes, which is no secret")
            return None
        try:
            text = content.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError:
            self.problems.add(item.line, where, f"{shown(item)} is not UTF-8")
            return None
        if not text:
            self.problems.add(item.line, where, f"{shown(item)} is empty")
            return None
        return SecretStr(text)

    def plain(self, item: Item, where: Where) -> object:
        """Any value, as the models take it."""
        match item.value:
            case dict():
                return {key: self.plain(entry, (*where, key)) for key, entry in item.value.items()}
            case list():
                return [self.plain(entry, (*where, str(n))) for n, entry in enumerate(item.value, 1)]
            case str():
                return self._fill(item, where)
            case _:
                return item.value

    def _fill(self, item: Item, where: Where) -> str | None:
        try:
            return self.variables.fill(item.text)
        except ConfigError as error:
            self.problems.add(item.line, where, str(error))
            return None

    def refused(
        self, errors: Iterable[ErrorDetails], item: Item, where: Where, default: Callable[[str], object]
    ) -> None:
        """Note what a model found wrong with the mapping `item`. `default` tells what a key is where left out."""
        for error in errors:
            place, path = item, where
            for part in error["loc"]:
                inner = _inside(place, part)
                if inner is None:
                    break
                place, path = inner, (*path, str(part + 1 if isinstance(part, int) else part))
            if not self.problems.has(path):  # a variable that is not set was named already
                key = str(error["loc"][0]) if error["loc"] else ""
                self.problems.add(place.line, path, _sentence(error, place, default(key)))


def _inside(item: Item, part: str | int) -> Item | None:
    if isinstance(part, str):
        return item.get(part)
    return item.value[part] if isinstance(item.value, list) and part < len(item.value) else None


def _stands(item: Item) -> str:
    return "nothing stands here" if item.value is None else f"{item.kind} stands here"


_KINDS: Final = {
    "string_type": "a text",
    **dict.fromkeys(("dict_type", "model_type"), "a mapping"),
    **dict.fromkeys(("tuple_type", "list_type", "set_type"), "a list"),
}


def _sentence(error: ErrorDetails, item: Item, default: object) -> str:
    """A model's complaint in words that say what would be right."""
    limits = error.get("ctx", {})
    kind = error["type"]
    if item.value is None and kind != "value_error":
        usual = f" (then it is {default})" if isinstance(default, str | int | float) else ""
        return f"has no value; write one, or leave the line out{usual}"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", str(limits["expected"]))
        near = guess(str(item.text), choices)
        return f"{shown(item)} is not one of {', '.join(choices)}{near}"
    numbers = {
        "greater_than": "above {gt:g}",
        "greater_than_equal": "from {ge:g} on",
        "less_than_equal": "up to {le:g}",
    }
    if kind in numbers:
        return f"{shown(item)} is out of range: it takes a number {numbers[kind].format(**limits)}"
    if kind.startswith(("int", "float")) or kind in {"number", "finite_number"}:
        whole = "a whole number" if kind.startswith("int") else "a number"
        return f"{shown(item)} is not {whole}{_mended(item.text, str(error['loc'][-1]))}"
    if kind.startswith("bool"):
        return f"{shown(item)} is neither true nor false"
    if kind == "string_pattern_mismatch" and limits["pattern"] in PATTERNS_IN_WORDS:
        return f"{shown(item)} does not fit; it takes {PATTERNS_IN_WORDS[limits['pattern']]}"
    if kind == "unfit":
        return error["msg"] if isinstance(item.value, dict | list) else f"{shown(item)} {error['msg']}"
    if kind in _KINDS:
        return f"takes {_KINDS[kind]}; {_stands(item)}"
    return "unknown key" if kind == "extra_forbidden" else error["msg"].removeprefix("Value error, ")


def _mended(text: str, key: str) -> str:
    """The number or variable that was probably meant."""
    if re.fullmatch(r"\$[A-Za-z_][A-Za-z0-9_]*", text):
        return f"; a variable is written ${{{text[1:]}}}"
    if key.endswith("_rate"):
        return "; it takes requests per second, or null for no limit"
    pattern, units, what = (_SIZE, _SIZES, "bytes") if key.endswith("_bytes") else (_DURATION, _UNITS, "seconds")
    match = pattern.fullmatch(text.strip())
    if match is None:
        return ""
    subject = "sizes" if units is _SIZES else "times"
    return f"; {subject} are {what}: {float(match.group(1)) * units[match.group(2).lower()]:.12g}"


def origin_fault(text: str) -> str | None:
    """Why `text` is no web origin, as browsers send it."""
    if text == "*":
        return "would let every web page call; write the origins out"
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return "is no origin such as https://chat.example.org"
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
        return "is no origin such as https://chat.example.org (scheme, host and port, no path)"
    return None
