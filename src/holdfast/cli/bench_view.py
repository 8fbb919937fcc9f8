"""What `holdfast bench` found: a table and a sentence for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from rich.text import Text

from holdfast.cli.bench_calls import Request, Tally
from holdfast.cli.columns import Column, lay_out
from holdfast.observe.log import one_line

_MILLISECOND: Final = 1e-3
_AS_GOOD: Final = 1.5
"""A message is not called faster or slower below this ratio: between two runs it moves as much."""
SUGGESTED: Final = 3
ERRORS: Final = 3
"""Different ones, of which the words are shown."""


class Way(StrEnum):
    """How the server was reached."""

    DIRECT = "direct"
    HOLDFAST = "holdfast"


SAID: Final = {Way.DIRECT: "directly", Way.HOLDFAST: "Holdfast"}
"""In a table, which has little room."""


class Message(StrEnum):
    """Which message of a host that connects for each."""

    DIRECT = "direct"
    FIRST = "first"
    LATER = "later"


@dataclass(slots=True)
class Calls:
    """Calls on so many kept connections."""

    way: Way
    connections: int
    tally: Tally = field(default_factory=Tally)
    problem: str = ""
    """Why there were none."""


@dataclass(slots=True)
class Report:
    """All that was measured."""

    server: str
    """What the server calls itself."""
    request: Request
    calls: list[Calls]
    messages: dict[Message, Tally]
    read_only: Sequence[str] = ()
    """Tools that need no arguments and say of themselves that they only read."""

    @property
    def tallies(self) -> Iterator[Tally]:
        """Everything that was counted."""
        yield from (row.tally for row in self.calls)
        yield from self.messages.values()

    @property
    def has_failed(self) -> bool:
        """Whether an answer was an error, or something could not be measured."""
        return any(tally.errors for tally in self.tallies) or any(row.problem for row in self.calls)


def as_json(report: Report) -> dict[str, Any]:
    """Everything, with times in milliseconds and CPU in microseconds."""
    return {
        "server": report.server,
        "called": {"method": "ping"} if report.request.tool is None else {"tool": report.request.tool},
        "calls": [
            {
                "way": row.way.value,
                "connections": row.connections,
                "calls_per_second": round(row.tally.calls_per_second, 1),
                **_figures(row.tally),
                **({"problem": row.problem} if row.problem else {}),
            }
            for row in report.calls
        ],
        "messages": [{"message": which.value, **_figures(tally)} for which, tally in report.messages.items()],
        "conclusion": conclusion(report),
    }


def _figures(tally: Tally) -> dict[str, Any]:
    cpu = tally.cpu_per_call
    return {
        "answers": len(tally.latencies),
        "errors": tally.errors,
        **({"first_error": tally.first_error} if tally.errors else {}),
        **{f"p{share}_ms": _rounded(tally.percentile(share / 100), _MILLISECOND) for share in (50, 90, 99)},
        "gateway_cpu_us": _rounded(cpu, 1e-6),
        "initializes": tally.initializes,
    }


def _rounded(seconds: float | None, unit: float) -> float | None:
    return None if seconds is None else round(seconds / unit, 3)


def draw(report: Report, width: int) -> list[Text]:
    """The figures, what to know of them, and what they mean; the figures fit into `width`."""
    lines = [Text(f"{report.server}: {_what_was_called(report.request)}", "bold")]
    groups = _groups(report)
    head, *rows = lay_out(_COLUMNS, [row for _, group in groups for row in group], width)
    lines.append(head)
    rest = iter(rows)
    for title, group in groups:
        lines.append(Text(title))
        lines += [next(rest) for _ in group]
    lines.append(Text())
    for row in report.calls:
        if row.problem:
            lines.append(Text(f"{_connections(row.connections)}, {SAID[row.way]}: {one_line(row.problem)}", "red"))
    errors = dict.fromkeys(tally.first_error for tally in report.tallies if tally.errors)
    for error in list(errors)[:ERRORS]:
        lines.append(Text(f"an error said: {one_line(error)}", "red"))
    return [*lines, *(Text(note, "dim") for note in notes(report)), Text(conclusion(report))]


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    tally: Tally
    has_speed: bool


def _groups(report: Report) -> list[tuple[str, list[_Row]]]:
    found: dict[str, list[_Row]] = {}
    for row in report.calls:
        found.setdefault(_connections(row.connections), []).append(_Row(SAID[row.way], row.tally, has_speed=True))
    messages = {
        Message.DIRECT: "directly",
        Message.FIRST: "Holdfast, first",
        Message.LATER: "Holdfast, later",
    }
    found["a message of a host that connects for each"] = [
        _Row(messages[which], tally, has_speed=False) for which, tally in report.messages.items()
    ]
    return list(found.items())


def _speed(row: _Row) -> str:
    return f"{row.tally.calls_per_second:,.0f}" if row.has_speed and row.tally.latencies else ""


def _cpu(row: _Row) -> str:
    cpu = row.tally.cpu_per_call
    return "" if cpu is None else f"{cpu * 1e6:,.0f}"


def _errors(row: _Row) -> Text:
    return Text(f"{row.tally.errors:,}", "bold red" if row.tally.errors else "")


def _share(share: float) -> Callable[[_Row], Text]:
    def cell(row: _Row) -> Text:
        latency = row.tally.percentile(share)
        return Text("-" if latency is None else _digits(latency * 1000))

    return cell


_COLUMNS: Final[list[Column[_Row]]] = [
    Column("", lambda row: Text(f"  {row.name}"), worth=9, widest=32),
    Column("calls/s", lambda row: Text(_speed(row)), worth=7, is_number=True),
    Column("p50 ms", _share(0.5), worth=8, is_number=True),
    Column("p90 ms", _share(0.9), worth=3, is_number=True),
    Column("p99 ms", _share(0.99), worth=4, is_number=True),
    Column("CPU µs", lambda row: Text(_cpu(row)), worth=5, is_number=True),
    Column("errors", _errors, worth=6, is_number=True),
    Column("initializes", lambda row: Text(f"{row.tally.initializes:,}"), worth=2, is_number=True),
]


def _what_was_called(request: Request) -> str:
    return "ping, which Holdfast answers itself" if request.tool is None else f"the tool {one_line(request.tool)}"


def _connections(count: int) -> str:
    return "1 connection" if count == 1 else f"{count} connections"


def duration(seconds: float) -> str:
    """A duration with the digits that count."""
    return f"{_digits(seconds * 1000)} ms" if seconds < 10 else f"{seconds:.0f} s"


def _digits(number: float) -> str:
    if number >= 10:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 1 else f"{number:.2g}"


def notes(report: Report) -> list[str]:
    """What whoever reads the figures has to know."""
    load = (
        "CPU is that of Holdfast for an answer, without the server's. One Python process makes the calls and shares"
        " the machine's cores, so calls/s say what it can make, at most."
    )
    found = [load]
    if report.request.tool is None:
        names = [one_line(name) for name in report.read_only[:SUGGESTED]]
        such = f", as {', '.join(names)}, which by its own account only reads" if names else ""
        found.append(
            "No tool was called, since it might do something. For the whole way through Holdfast to the server, name"
            f" one that may be called thousands of times with --tool{such}."
        )
    return found


def conclusion(report: Report) -> str:
    """What the figures mean, in a sentence or two."""
    messages = {which: tally.percentile(0.5) for which, tally in report.messages.items()}
    direct, later = messages.get(Message.DIRECT), messages.get(Message.LATER)
    said: list[str] = []
    if direct is not None and later is not None:
        both = f"{duration(direct)} for an answer without Holdfast and {duration(later)} with it"
        if later * _AS_GOOD < direct:
            said.append(f"A host that connects for every message waits {both}.")
        else:
            said.append(
                f"A host that connects for every message waits {both}: this server opens a session at once, and what"
                " Holdfast adds is that its state is kept."
            )
    if (more := _added(report)) is not None:
        said.append(f"On a kept connection a call takes {duration(more)} more.")
    if any(tally.errors for tally in report.tallies):
        said.append("Some answers were errors, and the figures are worth little.")
    return " ".join(said) or "Nothing could be measured."


def _added(report: Report) -> float | None:
    """What a call takes longer through Holdfast on a single connection, where it can be told."""
    found = {row.way: row.tally.percentile(0.5) for row in report.calls if row.connections == 1}
    direct, through = found.get(Way.DIRECT), found.get(Way.HOLDFAST)
    if direct is None or through is None or through <= direct or report.request.tool is None:
        return None
    return through - direct
