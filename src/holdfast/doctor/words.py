"""What was found out, in words: a row for each thing, with a mark that says at a glance whether it is well. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from holdfast.doctor.advice import is_stateless, takes_one
from holdfast.doctor.findings import Answer, Findings, Handshake, Lists, Modern, Refusal
from holdfast.doctor.problem import describe
from holdfast.wire.jsonrpc import METHOD_NOT_FOUND


class Mark(Enum):
    """How a finding is marked."""

    GOOD = "✓"
    """As the protocol has it, and as sessions are best kept."""
    NEUTRAL = "\N{EN DASH}"
    """It may be so or otherwise, or was not asked."""
    BAD = "✗"
    """To be reckoned with."""


@dataclass(frozen=True, slots=True)
class Row:
    """One finding, as a line."""

    group: str
    subject: str
    mark: Mark
    says: str
    seconds: float | None = None


def rows(findings: Findings) -> list[Row]:
    """The findings in the order in which they are read, those that were not asked left out."""
    return [*_eras(findings), *_sessions(findings), *_calls(findings), *_streams(findings), *_guards(findings)]


def _mark(is_good: bool | None) -> Mark:
    return Mark.NEUTRAL if is_good is None else Mark.GOOD if is_good else Mark.BAD


# What it speaks.


def _eras(findings: Findings) -> Iterator[Row]:
    group = "speaks"
    if findings.legacy_sse is not None:
        found = findings.legacy_sse
        says = f"revision {found.revision}, over the HTTP+SSE of 2024-11-05"
        yield Row(group, "handshake", Mark.GOOD, says, found.seconds)
    elif findings.handshake is not None:
        yield _handshake(group, findings.handshake, is_needed=not findings.is_modern_only)
    if findings.modern is not None:
        yield _modern(group, findings.modern)
    if findings.opened is not None:
        changes = ", ".join(findings.opened.announces)
        says = f"announces changes of {changes}" if changes else "announces no changes of its lists"
        yield Row(group, "list changes", _mark(True if changes else None), says)


def _handshake(group: str, found: Handshake, *, is_needed: bool) -> Row:
    if found.revision is not None:
        return Row(group, "handshake", Mark.GOOD, f"revision {found.revision}", found.seconds)
    says = f"no: {describe(found.answer)}"
    return Row(group, "handshake", Mark.BAD if is_needed else Mark.NEUTRAL, says, found.seconds)


def _modern(group: str, found: Modern) -> Row:
    if found.is_spoken:
        others = [revision for revision in found.revisions if revision != "2026-07-28"]
        says = f"yes, and {', '.join(others)}" if others else "yes"
        if found.counts_requests:
            return Row(group, "2026-07-28", Mark.BAD, f"{says}; each request counts against its limit", found.seconds)
        return Row(group, "2026-07-28", Mark.GOOD, says, found.seconds)
    if found.opens_session:
        says = f"no: {describe(found.answer)}, with a session that nobody uses"
        return Row(group, "2026-07-28", Mark.BAD, says, found.seconds)
    if found.answer.is_served:
        named = ", ".join(found.revisions)
        says = f"no: it names {named}" if named else "no: it answers, and names no revisions"
        return Row(group, "2026-07-28", Mark.NEUTRAL, says, found.seconds)
    mark = Mark.BAD if found.answer.kind == "nothing" else Mark.NEUTRAL
    return Row(group, "2026-07-28", mark, f"no: {describe(found.answer)}", found.seconds)


# Sessions.


def _sessions(findings: Findings) -> Iterator[Row]:
    group = "sessions"
    if findings.is_modern_only:
        yield Row(group, "session id", Mark.NEUTRAL, "none: 2026-07-28 has no sessions")
    elif findings.opened is not None:
        yield _session_id(group, findings, findings.opened)
    if findings.missing_id is not None and not is_stateless(findings):
        says = _refused_or_served(findings.missing_id.answer)
        is_good = findings.missing_id.is_refused or None
        yield Row(group, "without an id", _mark(is_good), says, findings.missing_id.seconds)
    if findings.unknown_id is not None:
        yield _unknown_id(group, findings)
    if findings.second is not None:
        yield _second(group, findings)
    if (kept := findings.reconnect) is not None and not is_stateless(findings):
        says = "outlives its connection" if kept.is_kept else f"ends with its connection: {describe(kept.answer)}"
        yield Row(group, "reconnecting", _mark(kept.is_kept), says, kept.seconds)
    yield from _state(group, findings)
    yield from _end(group, findings)


def _session_id(group: str, findings: Findings, opened: Handshake) -> Row:
    if findings.transport == "stdio":
        return Row(group, "session id", Mark.NEUTRAL, "none: the process is the session")
    if findings.transport == "sse":
        return Row(group, "session id", Mark.NEUTRAL, "none: the stream is the session")
    if opened.has_id:
        return Row(group, "session id", Mark.GOOD, "given")
    return Row(group, "session id", Mark.NEUTRAL, "none: every request stands for itself")


def _refused_or_served(answer: Answer) -> str:
    if answer.is_served:
        return "served all the same"
    if answer.status == 429:
        return f"not known: {describe(answer)}"
    return describe(answer) if answer.kind == "nothing" else f"refused: {describe(answer)}"


def _unknown_id(group: str, findings: Findings) -> Row:
    found = findings.unknown_id
    if found is None:
        raise ValueError("it was not asked")
    says = _refused_or_served(found.answer)
    if found.ping.is_served and not found.answer.is_served:
        says = f"{says}; but a ping is answered"
    return Row(group, "unknown id", _mark(found.is_refused), says, found.seconds)


def _second(group: str, findings: Findings) -> Row:
    found = findings.second
    if found is None:
        raise ValueError("it was not asked")
    subject = {"stdio": "second process"}.get(findings.transport, "second at once")
    if not found.is_accepted:
        return Row(group, subject, Mark.BAD, _refused_or_served(found.answer), found.seconds)
    if takes_one(findings):
        return Row(group, subject, Mark.BAD, "accepted, and the first does not answer any more", found.seconds)
    return Row(group, subject, Mark.GOOD, "accepted, and the first lives on", found.seconds)


def _state(group: str, findings: Findings) -> Iterator[Row]:
    found = findings.state
    if found is None:
        return
    subject = "memory"
    if found.problem:
        yield Row(group, subject, Mark.NEUTRAL, f"not known: {found.problem}", found.seconds)
        return
    if not found.same:
        says = f"{found.read} gives the same before and after {found.write}"
        yield Row(group, subject, Mark.NEUTRAL, says, found.seconds)
        return
    where = [
        ("the next call", found.same),
        ("a new connection", found.reconnected),
        ("a second session", found.second),
        ("a later session", found.later),
        ("requests of 2026-07-28", found.modern),
    ]
    seen = [name for name, is_there in where if is_there]
    unseen = [name for name, is_there in where if is_there is False]
    says = f"there for {_listed(seen, 'and')}" + (f"; not for {_listed(unseen, 'or')}" if unseen else "")
    yield Row(group, subject, _mark(None if found.second else True), says, found.seconds)


def _listed(names: list[str], word: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def _end(group: str, findings: Findings) -> Iterator[Row]:
    found = findings.end
    if found is None:
        return
    if findings.transport != "http":
        what = "process" if findings.transport == "stdio" else "stream"
        yield Row(group, "end", Mark.GOOD, f"the {what} is closed", found.seconds)
        return
    says = describe(found.answer)
    if found.is_gone:
        says += "; the session is gone"
    elif found.is_gone is False:
        says += "; the session is still there"
    if found.does_make_room is False:
        says += "; no other can be opened"
    is_good = found.is_gone and found.does_make_room is not False
    yield Row(group, "DELETE", _mark(is_good), says, found.seconds)


# Calls.


def _calls(findings: Findings) -> Iterator[Row]:
    group = "calls"
    if (ping := findings.ping) is not None:
        says = "answered" if ping.answer.is_served else describe(ping.answer)
        yield Row(group, "ping", _mark(ping.answer.is_served), says, ping.seconds)
    if (found := findings.lists) is not None:
        is_listed = found.answer.is_served or found.answer.code == METHOD_NOT_FOUND
        yield Row(group, "lists", _mark(is_listed), _lists(found), found.seconds)
    if (parallel := findings.parallel) is not None:
        asked = f"{parallel.sent} of {parallel.request}"
        if not parallel.sent:
            says = f"not tried: one {parallel.request} alone is not answered"
        elif parallel.answered < parallel.sent:
            says = f"{asked}: {parallel.answered} answered"
        elif parallel.pace == "unknown":
            says = f"{asked}: all answered, too fast to tell more"
        else:
            says = f"{asked}: {parallel.pace}; one alone takes {_time(parallel.alone_seconds)}"
        is_good = (
            False if parallel.answered < parallel.sent else None if parallel.pace == "one after the other" else True
        )
        yield Row(group, "at once", _mark(is_good), says, parallel.seconds)
    if (call := findings.call) is not None:
        says = f"{call.tool} fails: {describe(call.answer)}" if call.has_failed else f"{call.tool} succeeds"
        yield Row(group, "call", _mark(not call.has_failed), says, call.seconds)
        yield _progress(group, findings)
    if (allowance := findings.allowance) is not None:
        told = f"{allowance.limit} requests in a while, {allowance.left} left" if allowance.limit else "there is one"
        says = f"{told}; exceeded (429)" if allowance.is_exceeded else told
        yield Row(group, "limit", Mark.BAD, says)


def _progress(group: str, findings: Findings) -> Row:
    call = findings.call
    if call is None or not call.progress:
        return Row(group, "progress", Mark.NEUTRAL, "none came")
    says = f"{call.progress} came"
    if call.strayed:
        return Row(group, "progress", Mark.BAD, f"{says}; of calls at once, {call.strayed} on another's stream")
    return Row(group, "progress", Mark.GOOD, says)


def _lists(found: Lists) -> str:
    if found.answer.is_served:
        words = [_counted(len(found.tools), "tool")]
        if found.read_only:
            words[0] += f" ({len(found.read_only)} read-only)"
    else:
        words = ["no tools" if found.answer.code == METHOD_NOT_FOUND else describe(found.answer)]
    counts = ((found.resources, "resource"), (found.prompts, "prompt"))
    words += [_counted(number, word) for number, word in counts if number is not None]
    return ", ".join(words) + ("; a second session has others" if found.is_same_in_second is False else "")


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


# Streams and guards.


def _streams(findings: Findings) -> Iterator[Row]:
    group = "streams"
    if (push := findings.push_stream) is not None:
        says = "open for what belongs to no call" if push.is_open else f"none: {describe(push.answer)}"
        yield Row(group, "GET", _mark(True if push.is_open else None), says, push.seconds)
    if (found := findings.resumption) is not None:
        if not found.has_event_ids:
            yield Row(group, "resumption", Mark.NEUTRAL, "none: events have no ids")
        elif found.is_resumed:
            yield Row(group, "resumption", Mark.GOOD, "a stream can be taken up again", found.seconds)
        else:
            says = "events have ids, and are not resumed"
            said = f": {describe(found.answer)}" if found.answer is not None else ""
            yield Row(group, "resumption", Mark.BAD, says + said, found.seconds)


def _guards(findings: Findings) -> Iterator[Row]:
    for subject, found in (("foreign Origin", findings.foreign_origin), ("foreign Host", findings.foreign_host)):
        if found is not None:
            yield Row("guards", subject, _mark(_is_guarded(found)), _refused_or_served(found.answer), found.seconds)


def _is_guarded(found: Refusal) -> bool | None:
    return found.is_refused if found.is_refused or found.answer.is_served else None
