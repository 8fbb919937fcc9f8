"""Why a server cannot be talked to, in one sentence that says what to do."""

from __future__ import annotations

from holdfast.doctor.findings import Answer, Findings


def problem_of(findings: Findings) -> str:
    """The sentence for a server with which there is neither a handshake nor 2026-07-28."""
    tried = findings.handshake
    if tried is None:
        return "the time was over before it answered"
    answer = tried.answer
    if answer.status == 401:
        return f"it refuses the credential ({describe(answer)}); give one with --key or --header"
    if answer.status == 403:
        return (
            f"it refuses the request ({describe(answer)}); give a credential with --key or --header,"
            " or write the host in the URL by the name that it expects, such as localhost"
        )
    if answer.status == 429:
        return f"it asks to be left alone for a while ({describe(answer)}); ask again later"
    if answer.kind == "nothing":
        return answer.words or "it does not answer"
    if answer.kind == "result":
        return f"no revision in common: {answer.words}"
    hint = "is it an MCP server?" if findings.transport == "stdio" else "is the path of the URL right?"
    return f"it does not answer initialize as an MCP server does: {describe(answer)}; {hint}"


def describe(answer: Answer) -> str:
    """An answer in a few words: its status, its code, and what it says."""
    words = [str(answer.status)] if answer.status is not None and answer.kind != "result" else []
    if answer.code is not None:
        words.append(str(answer.code))
    match answer.kind:
        case "result":
            words.append("answered")
        case "html":
            words.append("an HTML page")
        case "text":
            words.append("plain text")
        case "stream":
            words.append("an event stream")
        case "nothing" | "empty" | "error":
            pass
    said = " ".join(words)
    if not answer.words:
        return said or "no content"
    quoted = answer.words if answer.kind in {"nothing", "empty"} else f"“{answer.words}”"
    return f"{said} {quoted}" if said else quoted
