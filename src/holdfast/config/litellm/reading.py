"""What LiteLLM's values mean, and what is said of those that cannot stay."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from holdfast.config.source import Findings, Item
from holdfast.config.values import Where, guess, shown

_REFERENCE: Final = "os.environ/"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST: Final = 1e9
"""Seconds or calls; what is more is no limit."""
_INTERPOLATED: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_CREDENTIAL: Final = re.compile(r"auth|token|key|secret|passw|cookie|credential", re.IGNORECASE)

CLEAR: Final = "holds a secret in clear, as it did; better a variable: ${NAME}"
AS_IT_STANDS: Final = "keeps ${…} as text, as LiteLLM does; to mean a variable, write ${NAME} for $${NAME}"
UNREADABLE: Final = "is left out: what follows os.environ/ is no name of a variable"


@dataclass(frozen=True, slots=True)
class Reference:
    """A variable of the environment."""

    name: str

    @property
    def written(self) -> str:
        """As our form refers to it."""
        return f"${{{self.name}}}"


@dataclass(frozen=True, slots=True)
class Remark:
    """What an operator is to know of a key. Holds no secret."""

    line: int
    where: Where
    what: str

    def __str__(self) -> str:
        return f"{'.'.join(self.where)} (line {self.line}): {self.what}"


@dataclass(slots=True)
class Reading:
    """Everything that is found out while a file is read."""

    problems: Findings
    """Mistakes: with any of them, nothing is written."""
    remarks: list[Remark] = field(default_factory=list[Remark])
    """What is not carried over, or otherwise than it was."""
    variables: dict[str, None] = field(default_factory=dict[str, None])
    """The environment variables that the result refers to, in the order in which they came."""

    def remark(self, item: Item, where: Where, what: str) -> None:
        """Say `what` of the key `where`."""
        self.remarks.append(Remark(item.line, where, what))

    def text(self, item: Item, where: Where) -> str | None:
        """A value in our form: a reference as `${NAME}`, anything else as it stands. None after something was said."""
        if isinstance(item.value, dict | list) or item.value is None:
            self.problems.add(item.line, where, f"takes a text; {self.stands(item)}")
            return None
        if not is_reference(item):
            self.keep(item, where)
            return literal(item.text)
        reference = self.reference(item, where)
        return None if reference is None else self.refer(reference)

    def keep(self, item: Item, where: Where) -> None:
        """Say so where `${…}` stands in a value and means nothing to LiteLLM."""
        if "${" in item.text:
            self.remark(item, where, AS_IT_STANDS)

    def reference(self, item: Item, where: Where) -> Reference | None:
        """The variable that `os.environ/NAME` names. None after something was said."""
        name = item.text.removeprefix(_REFERENCE)
        if _VARIABLE.fullmatch(name):
            return Reference(name)
        self.remark(item, where, UNREADABLE)
        return None

    def refer(self, reference: Reference) -> str:
        """The reference as it is written; the result needs its variable from now on."""
        self.variables[reference.name] = None
        return reference.written

    def texts(self, item: Item, where: Where) -> list[str]:
        """The texts of a list, as they stand: LiteLLM fills in no variables there. Empty after a problem was noted."""
        if item.value is None:
            return []
        if not isinstance(item.value, list):
            self.problems.add(item.line, where, f"takes a list of texts; {self.stands(item)}")
            return []
        found: list[str] = []
        for number, each in enumerate(item.value, 1):
            place = (*where, str(number))
            if isinstance(each.value, dict | list) or each.value is None:
                self.problems.add(each.line, place, f"takes a text; {self.stands(each)}")
                continue
            if is_reference(each):
                what = "is passed on as it stands, as LiteLLM does in a list; a variable's value is ${NAME}"
                self.remark(each, place, what)
            self.keep(each, place)
            found.append(each.text)
        return found

    def mapping(self, item: Item, where: Where) -> dict[str, Item]:
        """The entries of a mapping. Empty after a problem was noted."""
        if isinstance(item.value, dict):
            return item.value
        if item.value is not None:
            self.problems.add(item.line, where, f"takes names and values; {self.stands(item)}")
        return {}

    def choice(self, item: Item, where: Where, choices: tuple[str, ...]) -> str | None:
        """One of some words. None after a problem was noted."""
        if item.text in choices:
            return item.text
        near = guess(item.text, choices)
        self.problems.add(item.line, where, f"{shown(item)} is not one of {', '.join(choices)}{near}")
        return None

    def number(self, item: Item, where: Where) -> float | int | None:
        """A number. None after a problem was noted, and for one that means no limit."""
        if item.value is None:
            return None
        try:
            number = item.value if isinstance(item.value, int) else float(item.text)
            if not isinstance(number, bool):
                return number if 0 < number <= _MOST else None
        except ValueError:
            pass
        self.problems.add(item.line, where, f"takes a number; {self.stands(item)}")
        return None

    def guard(self, item: Item, where: Where) -> None:
        """Say so where a value that is probably a secret stands in clear."""
        is_clear = item.text and not is_reference(item) and not _INTERPOLATED.search(item.text)
        if is_clear and _CREDENTIAL.search(where[-1]):
            self.remark(item, where, CLEAR)

    @staticmethod
    def stands(item: Item) -> str:
        """What there is instead."""
        return "nothing stands here" if item.value is None else f"{item.kind} stands here"


def literal(text: str) -> str:
    """A text that is to stay what it is: `${` means nothing in it."""
    return text.replace("${", "$${")


def is_reference(item: Item) -> bool:
    """Whether LiteLLM takes the value from the environment."""
    return isinstance(item.value, str) and item.text.startswith(_REFERENCE)


def fill(text: str, known: Mapping[str, str | Reference]) -> tuple[str, list[Reference]] | None:
    """A text in our form with LiteLLM's own `${NAME}` filled in by `known`, and what it refers to then.

    Names that are not known stand as they are. None where our form cannot say it: a `$` right before a reference.
    """
    written, plain, at = "", "", 0
    references: list[Reference] = []
    for match in _INTERPOLATED.finditer(text):
        value = known.get(match.group(1), match.group())
        plain += text[at : match.start()]
        at = match.end()
        if isinstance(value, str):
            plain += value
        elif plain.endswith("$"):
            return None
        else:
            written, plain = written + literal(plain) + value.written, ""
            references.append(value)
    return written + literal(plain + text[at:]), references
