"""Environment variables in settings."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from holdfast.errors import ConfigError

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_INNER: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_OF_EDITORS: Final = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)|input:([A-Za-z0-9_. -]+)")
_PRINTABLE: Final = re.compile(r"[\w.:/ -]{1,60}")


def expand(text: str, environment: Mapping[str, str] | None = None) -> str:
    """`text` with `${NAME}` and `${NAME:-default}` replaced. Raises `ConfigError` where one is not set."""
    known = os.environ if environment is None else environment

    def value(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        if name in known:
            return known[name]
        if default is not None:
            return default
        raise ConfigError(f"the environment variable {name} is not set")  # the text around it may be a secret

    return _VARIABLE.sub(value, text)


@dataclass(frozen=True, slots=True)
class Variables:
    """What stands for `${…}` in a settings file. Stricter than `expand`: what is not understood is a mistake."""

    environment: Mapping[str, str] = field(repr=False)
    places: Mapping[str, str] = field(default_factory=dict[str, str])
    """The folders that editors name: `workspaceFolder`, `userHome` and the like."""
    answers: Mapping[str, str] = field(default_factory=dict[str, str])
    """What an editor would answer to `${input:ID}` if nobody types anything."""
    is_editors: bool = False
    """`${env:NAME}` and `${input:ID}` are understood."""

    def fill(self, text: str) -> str:
        """`text` with every variable put in; `$${` stands for `${`.

        Raises `ConfigError`, which quotes names and nothing of the text around them.
        """
        faults: dict[str, None] = {}

        def value(match: re.Match[str]) -> str:
            if match.group(1) is None:
                return "${"
            try:
                return self._value(match.group(1), is_closed=bool(match.group(2)))
            except ConfigError as error:
                faults[str(error)] = None
                return ""

        filled = _REFERENCE.sub(value, text)
        if faults:
            raise ConfigError("; ".join(faults))
        return filled

    def _value(self, inner: str, *, is_closed: bool) -> str:
        plain = _INNER.fullmatch(inner)
        if not is_closed or "${" in inner:
            what = "a ${ lacks its }" if not is_closed else "a ${…} stands inside another"
            raise ConfigError(f"{what}; write ${{NAME}} or ${{NAME:-default}}, and $${{ for a plain ${{")
        if inner in self.places:
            return self.places[inner]
        if plain is not None:
            return self._variable(plain.group(1), plain.group(2))
        theirs = _OF_EDITORS.fullmatch(inner)
        if theirs is not None and self.is_editors:
            return self._variable(theirs.group(1), None) if theirs.group(1) else self._answer(theirs.group(2))
        if theirs is not None and theirs.group(1):
            raise ConfigError(f"write ${{{theirs.group(1)}}} instead of ${{env:{theirs.group(1)}}}")
        shown = f"${{{inner}}}" if _PRINTABLE.fullmatch(inner) else "what stands in ${…}"
        if self.is_editors and ":" in inner:
            raise ConfigError(f"{shown} can only be filled in by an editor; write the value itself, or ${{NAME}}")
        raise ConfigError(
            f"{shown} is no environment variable; write ${{NAME}} or ${{NAME:-default}}, and $${{ for a plain ${{"
        )

    def _variable(self, name: str, default: str | None) -> str:
        if name in self.environment:
            return self.environment[name]
        if default is not None:
            return default
        raise ConfigError(f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}")

    def _answer(self, asked: str) -> str:
        name = "HOLDFAST_INPUT_" + re.sub(r"[^A-Za-z0-9]", "_", asked).upper()
        if name in self.environment:
            return self.environment[name]
        if asked in self.answers:
            return self.answers[asked]
        raise ConfigError(f"an editor would ask for ${{input:{asked}}}; set the environment variable {name} instead")
