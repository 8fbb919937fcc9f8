"""A server's question, put to the person at the terminal field by field."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

from msgspec import Raw
from rich.console import Console
from rich.text import Text

from holdfast.call import Ask, Json
from holdfast.cli.progress import CallView
from holdfast.observe.log import one_line
from holdfast.wire import jsonrpc

ReadLine: TypeAlias = Callable[[], Awaitable[str | None]]
"""A line that the person typed; None where they ended the input."""

_YES: Final = frozenset({"y", "yes", "true", "1", "on"})
_NO: Final = frozenset({"n", "no", "false", "0", "off"})
_INTEGER: Final = "a whole number"
_MAX_LINE: Final = 65536


class _Ended(Exception):
    """The person does not go on: `action` says how they left."""

    def __init__(self, action: str) -> None:
        super().__init__(action)
        self.action = action


class Questions:
    """Puts the questions of a server to the person at `console`, and takes the bar away meanwhile."""

    def __init__(self, console: Console, server_name: str, view: CallView, read_line: ReadLine | None = None) -> None:
        self._console = console
        self._server_name = server_name
        self._view = view
        self._read_line = read_line if read_line is not None else read_terminal_line

    async def __call__(self, ask: Ask) -> Raw:
        """Put `ask`; returns the `ElicitResult`. Cancelled, it leaves the terminal to others."""
        params = jsonrpc.decode_value(ask.params) if ask.params is not None else None
        self._view.pause()
        try:
            answer = await self._put(params if isinstance(params, dict) else {}, is_url=ask.is_url_elicitation)
        except _Ended as ended:
            answer = {"action": ended.action}
        finally:
            self._view.start()
        return Raw(jsonrpc.encode(answer))

    async def _put(self, params: Mapping[str, Json], *, is_url: bool) -> dict[str, Json]:
        self._print(Text.assemble((one_line(self._server_name), "bold"), " asks: ", one_line(_text(params, "message"))))
        if is_url:
            self._print(
                Text.assemble("  Open this yourself, if you trust it: ", (one_line(_text(params, "url")), "cyan"))
            )
            is_agreed = await self._confirm("  Tell the server that you did?")
            return {"action": "accept" if is_agreed else "decline"}
        schema = params.get("requestedSchema")
        properties = schema.get("properties") if isinstance(schema, dict) else None
        required = schema.get("required") if isinstance(schema, dict) else None
        if not isinstance(properties, dict) or not properties:
            return {"action": "accept", "content": {}} if await self._confirm("  Agree?") else {"action": "decline"}
        must = required if isinstance(required, list) else []
        self._print(Text("  Enter alone takes the default, or leaves it out; Ctrl-D cancels.", "dim"))
        content: dict[str, Json] = {}
        for name, field in properties.items():
            given = await self._field(name, field if isinstance(field, dict) else {}, is_required=name in must)
            if given is not None:
                content[name] = given
        # One who typed nothing, where there was nothing to take for it, has said no.
        return {"action": "accept", "content": content} if content else {"action": "decline"}

    async def _field(self, name: str, field: Mapping[str, Json], *, is_required: bool) -> Json:
        default = field.get("default")
        title = _text(field, "title") or name
        kind = _kind(field)
        notes = [kind, *(["required"] if is_required else [])]
        prompt = Text.assemble("  ", (one_line(title), "bold"), (f" ({one_line(', '.join(notes))})", "dim"))
        if default is not None:
            prompt.append(f" [{one_line(_shown(default))}]", "cyan")
        if described := one_line(_text(field, "description")):
            self._print(Text(f"  {described}", "dim"))
        while True:
            typed = (await self._ask(prompt)).strip()
            if not typed:
                if default is None and is_required:
                    raise _Ended("decline")
                return default
            try:
                return parse_field(typed, field)
            except ValueError as error:
                self._print(Text(f"  It takes {error}.", "yellow"))

    async def _confirm(self, question: str) -> bool:
        return (await self._ask(Text.assemble(question, (" [y/N]", "cyan")))).strip().lower() in _YES

    async def _ask(self, prompt: Text) -> str:
        self._console.print(prompt, end=": ", soft_wrap=True)
        line = None
        try:
            line = await self._read_line()
        finally:
            if line is None:  # the cursor still stands behind the prompt
                self._console.print()
        if line is None:
            raise _Ended("cancel")
        return line

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


async def read_terminal_line() -> str | None:
    """The next line that is typed at standard input, which must be a terminal; None for its end.

    The loop watches it, and no thread waits: a cancelled question leaves nothing behind.
    """
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()
    is_readable = loop.create_future()

    def readable() -> None:
        if not is_readable.done():
            is_readable.set_result(None)

    loop.add_reader(descriptor, readable)
    try:
        await is_readable
    finally:
        loop.remove_reader(descriptor)
    typed = os.read(descriptor, _MAX_LINE)  # a terminal gives one line at a time
    return typed.decode(errors="replace") if typed else None


def choices(field: Mapping[str, Json]) -> dict[str, str]:
    """The values that a field may have, each with what it is called; empty where it is free."""
    values, names = field.get("enum"), field.get("enumNames")
    if isinstance(values, list):
        called = names if isinstance(names, list) and len(names) == len(values) else values
        return {str(value): str(name) for value, name in zip(values, called, strict=True)}
    for key in ("oneOf", "anyOf"):
        options = field.get(key)
        if isinstance(options, list):
            known = [option for option in options if isinstance(option, dict) and "const" in option]
            return {str(option["const"]): str(option.get("title", option["const"])) for option in known}
    return {}


def parse_field(typed: str, field: Mapping[str, Json]) -> Json:
    """What the person typed, as the field's type. Raises `ValueError`, which says what the field takes."""
    kind = field.get("type")
    if kind == "array":
        items = field.get("items")
        inner = items if isinstance(items, dict) else {}
        chosen = [_choice(word.strip(), inner) for word in typed.split(",") if word.strip()]
        if not _is_within(len(chosen), field, "minItems", "maxItems"):
            raise ValueError(_kind(field))
        return list(chosen)
    if kind == "boolean":
        if typed.lower() not in _YES | _NO:
            raise ValueError("yes or no")
        return typed.lower() in _YES
    if kind in {"integer", "number"}:
        return _number(typed, field, is_whole=kind == "integer")
    chosen_one = _choice(typed, field)
    if not _is_within(len(chosen_one), field, "minLength", "maxLength"):
        raise ValueError(_kind(field))
    return chosen_one


def _choice(typed: str, field: Mapping[str, Json]) -> str:
    """A value among the field's, by itself or by what it is called."""
    known = choices(field)
    if not known or typed in known:
        return typed
    for value, name in known.items():
        if typed.lower() in {name.lower(), value.lower()}:
            return value
    raise ValueError(f"one of {', '.join(known)}")


def _number(typed: str, field: Mapping[str, Json], *, is_whole: bool) -> Json:
    try:
        value: int | float = int(typed) if is_whole else float(typed)
    except ValueError:
        raise ValueError(_kind(field)) from None
    if not math.isfinite(value) or not _is_within(value, field, "minimum", "maximum"):
        raise ValueError(_kind(field))
    return value


def _is_within(value: float, field: Mapping[str, Json], low: str, high: str) -> bool:
    lowest, highest = field.get(low), field.get(high)
    is_high_enough = not isinstance(lowest, int | float) or value >= lowest
    return is_high_enough and (not isinstance(highest, int | float) or value <= highest)


def _kind(field: Mapping[str, Json]) -> str:
    """What a field takes, in words."""
    kind = field.get("type")
    items = field.get("items")
    if kind == "array":
        known = choices(items) if isinstance(items, dict) else {}
        return f"any of {_named(known)}, with commas between" + _range(field, "minItems", "maxItems")
    if known := choices(field):
        return f"one of {_named(known)}"
    match kind:
        case "boolean":
            return "yes or no"
        case "integer" | "number":
            return (_INTEGER if kind == "integer" else "a number") + _range(field, "minimum", "maximum")
        case _:
            form = _text(field, "format")
            word = {"uri": "a URL", "email": "an email address", "date": "a date"}.get(form, form or "text")
            limits = _range(field, "minLength", "maxLength")
            return f"{word}{limits} characters" if limits else word


def _named(known: Mapping[str, str]) -> str:
    return ", ".join(value if name == value else f"{value} = {name}" for value, name in known.items())


def _range(field: Mapping[str, Json], low: str, high: str) -> str:
    lowest, highest = (value if isinstance(value, int | float) else None for value in (field.get(low), field.get(high)))
    if lowest is not None and highest is not None:
        return f", {lowest:g} to {highest:g}"
    if lowest is not None:
        return f", at least {lowest:g}"
    return f", at most {highest:g}" if highest is not None else ""


def _shown(value: Json) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _text(fields: Mapping[str, Json], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
