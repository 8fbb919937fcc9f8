"""From what was found out to the settings that suit it, each with its reason. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from holdfast.doctor.findings import Findings

USUAL_OPEN_TIMEOUT: Final = 30.0
"""The default of `open_timeout`."""
LONG_IDLE: Final = 7200
_ROOM: Final = 3
"""How many times as long as it took here an opening may take elsewhere, on a busier machine."""
_FEW: Final = 60
"""An allowance up to here is used up by a busy hour of chats, or a start of the gateway."""


@dataclass(frozen=True, slots=True)
class Advice:
    """A setting of a server in the settings file, its value, and why."""

    setting: str
    value: str | int
    reason: str


def advise(findings: Findings) -> list[Advice]:
    """The settings that differ from the defaults, and always the scope; none for a server that cannot be used."""
    if findings.problem:
        return []
    settings = [_scope(findings)]
    for rule in (_max_sessions, _serial, _lists, _era, _transport, _start, _open_timeout, _idle_timeout):
        found = rule(findings)
        if found is not None:
            settings.append(found)
    return settings


def remarks(findings: Findings) -> list[str]:
    """What to know beside the settings."""
    of_sessions = () if findings.problem else (_bumped, _unnoticed_loss, _open_door, _no_proof, _both_eras)
    rules = (*of_sessions, _left_behind, _cut)
    return [remark for rule in rules if (remark := rule(findings))]


def takes_one(findings: Findings) -> bool:
    """It has one session at a time: a second is refused, or costs the first its life."""
    second = findings.second
    if second is None or second.answer.status == 429:
        return False
    if not second.is_accepted:
        return True
    return second.does_first_survive is False and _answered_before(findings)


def is_stateless(findings: Findings) -> bool:
    """Nothing ties two requests together: the server could not tell two chats apart if it wanted."""
    if findings.is_modern_only:
        return True
    opened = findings.opened
    return findings.transport == "http" and opened is not None and not opened.has_id


def _answered_before(findings: Findings) -> bool:
    """A server that never answers `ping` has not lost the first session for not answering it now."""
    return findings.ping is not None and findings.ping.answer.kind in {"result", "error"}


def _scope(findings: Findings) -> Advice:
    state, missing, unknown = findings.state, findings.missing_id, findings.unknown_id
    if takes_one(findings):
        return Advice("scope", "shared", "It has one session at a time, so all chats use the one, and share its state.")
    if findings.is_modern_only:
        reason = "2026-07-28 has no sessions: the server cannot tell chats apart, and one can serve all."
        return Advice("scope", "shared", reason)
    if is_stateless(findings):
        return Advice("scope", "shared", "It gives no session id: it cannot tell chats apart, and one serves all.")
    if state is not None and state.second is True:
        reason = (
            f"What {state.write} wrote in one session, {state.read} found in another: its sessions keep nothing apart."
        )
        return Advice("scope", "shared", reason)
    if missing is not None and unknown is not None and missing.answer.is_served and unknown.answer.is_served:
        return Advice("scope", "shared", "It serves requests without a session, or of none that it knows, all alike.")
    if state is not None and state.same and state.second is False:
        reason = f"What {state.write} wrote stays in its session, and no other sees it: one for each chat."
        return Advice("scope", "chat", reason)
    what = "Each session is a process" if findings.transport == "stdio" else "It has sessions"
    return Advice("scope", "chat", f"{what}, and what one remembers is not meant for others.")


def _max_sessions(findings: Findings) -> Advice | None:
    if not takes_one(findings):
        return None
    second = findings.second
    if second is not None and second.is_accepted:
        return Advice("max_sessions", 1, "A second session costs the first its life.")
    return Advice("max_sessions", 1, "A second session is refused while one is open.")


def _serial(findings: Findings) -> Advice | None:
    parallel, call = findings.parallel, findings.call
    if call is not None and call.strayed:
        reason = "It sends a call's messages on the stream of another, where a question could reach the wrong person."
        return Advice("serial", "true", reason)
    is_told_to_wait = findings.allowance is not None and findings.allowance.is_exceeded
    if parallel is None or parallel.answered == parallel.sent or is_told_to_wait:
        return None
    reason = f"Of {parallel.sent} requests at once it answered {parallel.answered}."
    return Advice("serial", "true", reason)


def _lists(findings: Findings) -> Advice | None:
    if findings.lists is None or findings.lists.is_same_in_second is not False:
        return None
    return Advice("lists", "session", "A second session has other tools than the first.")


def _era(findings: Findings) -> Advice | None:
    modern, state = findings.modern, findings.state
    if modern is None or findings.opened is None or findings.transport == "sse":
        return None
    if modern.is_spoken and state is not None and state.same and state.modern is False:
        reason = "It remembers in sessions, and nothing between requests of 2026-07-28, which it speaks as well."
        return Advice("era", "handshake", reason)
    if modern.counts_requests:
        reason = "It counts each request of 2026-07-28 against its limit, and of a session only the opening."
        return Advice("era", "handshake", reason)
    if modern.is_spoken:
        return None
    if modern.opens_session:
        return Advice("era", "handshake", "Asked for 2026-07-28, it opens a session that nobody uses.")
    if modern.answer.kind == "nothing":
        return Advice("era", "handshake", "Asked for 2026-07-28, it does not answer: the first opening would wait.")
    return None


def _transport(findings: Findings) -> Advice | None:
    if findings.transport != "sse":
        return None
    return Advice("transport", "sse", "It knows only the HTTP+SSE of 2024-11-05; nothing else needs to be tried first.")


def _start(findings: Findings) -> Advice | None:
    allowance = findings.allowance
    if allowance is None or takes_one(findings) or allowance.limit > _FEW:
        return None
    limit = f"{allowance.limit} openings" if allowance.limit else "few requests"
    return Advice("start", "lazy", f"It allows {limit} in a while: none is spent before somebody calls.")


def _open_timeout(findings: Findings) -> Advice | None:
    opened = findings.opened
    if opened is None or opened.seconds * _ROOM <= USUAL_OPEN_TIMEOUT:
        return None
    seconds = math.ceil(opened.seconds * _ROOM / 10) * 10
    return Advice("open_timeout", seconds, f"Opening a session took {opened.seconds:.0f} s here.")


def _idle_timeout(findings: Findings) -> Advice | None:
    end = findings.end
    if end is not None and end.answer.status in {405, 501}:
        reason = "It does not end sessions when told: each that is closed stays there until it forgets it."
        return Advice("idle_timeout", LONG_IDLE, reason)
    if end is not None and end.does_make_room is False:
        return Advice("idle_timeout", LONG_IDLE, "Its one session makes no room for another when it ends.")
    return None


def _bumped(findings: Findings) -> str:
    if takes_one(findings) and findings.second is not None and findings.second.is_accepted:
        return "Whoever else connects to it ends the session of Holdfast: leave it to Holdfast alone."
    return ""


def _unnoticed_loss(findings: Findings) -> str:
    unknown = findings.unknown_id
    if unknown is None or unknown.is_refused or unknown.answer.status == 429:
        return ""
    if unknown.answer.is_served:
        return "It answers under session ids that it never gave: that a session was lost cannot be noticed."
    return "It answers a ping under session ids that it never gave: that a session was lost may go unnoticed."


def _open_door(findings: Findings) -> str:
    origin, host = findings.foreign_origin, findings.foreign_host
    if origin is None or host is None or (origin.is_refused and host.is_refused):
        return ""
    if origin.is_refused or host.is_refused:
        what = "of any origin" if host.is_refused else "under any name"
        return (
            f"It answers requests {what}, and is guarded against web sites by the other check alone (origin and host)."
            " Holdfast in front of it makes both."
        )
    return (
        "It answers pages of any origin and under any name: a web site could reach it through a browser on this"
        " machine. Holdfast in front of it refuses them; block the server's own port where you can."
    )


def _no_proof(findings: Findings) -> str:
    if findings.state is not None:
        state = findings.state
        if state.problem:
            return f"What it remembers is not known: {state.problem}."
        if state.same is False:
            return (
                f"{state.read} gave the same before and after {state.write}: either nothing is kept, or it was there"
                " before. Try it with another value."
            )
        return ""
    if is_stateless(findings) or takes_one(findings):
        return ""
    return (
        "Whether it remembers anything was not tried. Name a tool that writes and one that reads it:"
        " --write 'TOOL={…}' --read 'TOOL={…}'. If it keeps nothing, scope: shared needs one session for all."
    )


def _both_eras(findings: Findings) -> str:
    modern, state = findings.modern, findings.state
    is_decided = _era(findings) is not None or (state is not None and state.modern is not None)
    if modern is None or not modern.is_spoken or findings.opened is None or is_stateless(findings) or is_decided:
        return ""
    return (
        "It speaks 2026-07-28, too, which has no sessions. If what it remembers is of its sessions alone,"
        " era: handshake keeps it for clients of 2026-07-28 as well."
    )


def _left_behind(findings: Findings) -> str:
    if not findings.left_behind:
        return ""
    what = "One session" if findings.left_behind == 1 else f"{findings.left_behind} sessions"
    return f"{what} could not be ended, and will be there until the server forgets."


def _cut(findings: Findings) -> str:
    return "The time was over before everything was asked; --timeout SECONDS gives it more." if findings.is_cut else ""
