"""`holdfast doctor` against the scripted server in its modes: what is found is what the server was told to be."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest

from holdfast.config import ServerSettings
from holdfast.doctor.advice import advise
from holdfast.doctor.examine import examine
from holdfast.doctor.findings import Findings
from holdfast.doctor.named import Named, UnknownTool, Wanted
from holdfast.testing.server import ScriptedServer, ServerOptions
from requirements import requirement

LONG: Final = 600.0
"""Seconds for an examination, so that a busy machine cuts none short."""


async def examined(server: ScriptedServer, wanted: Wanted | None = None) -> Findings:
    async with asyncio.timeout(120):
        return await examine(ServerSettings(name="it", url=server.url), wanted or Wanted(), total=LONG)


async def found(wanted: Wanted | None = None, **options: Any) -> Findings:
    """Of a server with these options; it is checked that nothing is left there."""
    async with asyncio.timeout(120), ScriptedServer(ServerOptions(**options)) as server:
        findings = await examined(server, wanted)
        await server.until(lambda: not server.sessions)
        await server.until(lambda: not server.connections)
    assert (findings.problem, findings.is_cut, findings.left_behind) == ("", False, 0)
    return findings


def settings(findings: Findings) -> dict[str, str | int]:
    return {one.setting: one.value for one in advise(findings)}


# What it finds.


@requirement("doctor:findings:as-the-server-is")
async def test_a_server_as_it_should_be() -> None:
    it = await found()
    assert it.transport == "http"
    assert it.handshake is not None
    assert (it.handshake.revision, it.handshake.has_id) == ("2025-11-25", True)
    assert it.handshake.announces == ("tools", "resources", "prompts")
    assert it.modern is not None
    assert (it.modern.is_spoken, it.modern.answer.status) == (False, 400)
    assert it.missing_id is not None
    assert (it.missing_id.is_refused, it.missing_id.answer.status, it.missing_id.answer.code) == (True, 400, -32000)
    assert it.unknown_id is not None
    assert (it.unknown_id.is_refused, it.unknown_id.answer.status, it.unknown_id.ping.status) == (True, 404, 404)
    assert it.second is not None
    assert (it.second.is_accepted, it.second.does_first_survive) == (True, True)
    assert it.reconnect is not None
    assert it.reconnect.is_kept
    assert it.ping is not None
    assert it.ping.answer.is_served
    assert it.lists is not None
    assert {"remember", "recall"} <= set(it.lists.tools)
    assert "recall" in it.lists.read_only
    assert "remember" not in it.lists.read_only
    assert (it.lists.resources, it.lists.prompts, it.lists.is_same_in_second) == (2, 1, True)
    assert it.parallel is not None
    assert (it.parallel.sent, it.parallel.answered) == (3, 3)
    assert it.push_stream is not None
    assert it.push_stream.is_open
    assert it.resumption is not None
    assert not it.resumption.has_event_ids
    assert it.end is not None
    assert (it.end.answer.status, it.end.is_gone) == (204, True)
    assert it.foreign_origin is not None
    assert (it.foreign_origin.is_refused, it.foreign_origin.answer.status) == (True, 403)
    assert it.foreign_host is not None
    assert not it.foreign_host.is_refused, "the scripted server looks at the origin alone"
    assert it.allowance is None
    assert settings(it) == {"scope": "chat"}


@requirement("doctor:findings:as-the-server-is")
async def test_what_was_remembered_is_looked_for_in_every_session() -> None:
    it = await found()
    assert it.state is not None
    assert (it.state.same, it.state.reconnected, it.state.second, it.state.later) == (True, True, False, False)


@requirement("doctor:findings:as-the-server-is")
async def test_a_server_that_takes_one_connection_refuses_the_second_with_a_page_and_keeps_the_first() -> None:
    it = await found(one_connection=True)
    assert it.second is not None
    assert (it.second.is_accepted, it.second.does_first_survive) == (False, True)
    assert (it.second.answer.kind, it.second.answer.status) == ("html", 500)
    assert "Already connected" in it.second.answer.words
    assert it.end is not None
    assert it.end.does_make_room
    assert it.state is not None
    assert (it.state.same, it.state.second, it.state.later) == (True, None, False)
    assert settings(it) == {"scope": "shared", "max_sessions": 1}


@requirement("doctor:findings:as-the-server-is")
async def test_an_unknown_id_gets_the_status_that_the_server_has_for_it() -> None:
    it = await found(unknown_session=400, json=True)
    assert it.unknown_id is not None
    assert (it.unknown_id.is_refused, it.unknown_id.answer.status) == (True, 400)


@requirement("doctor:findings:as-the-server-is")
async def test_streams_that_can_be_resumed_are_resumed() -> None:
    it = await found(prime=True)
    assert it.resumption is not None
    assert (it.resumption.has_event_ids, it.resumption.is_resumed) == (True, True)


@requirement("doctor:findings:as-the-server-is")
async def test_a_server_without_a_stream_for_pushes_answers_405() -> None:
    it = await found(get=False)
    assert it.push_stream is not None
    assert (it.push_stream.is_open, it.push_stream.answer.status) == (False, 405)


@requirement("doctor:findings:as-the-server-is")
async def test_an_old_revision_is_the_one_that_is_negotiated() -> None:
    it = await found(revision="2024-11-05")
    assert it.handshake is not None
    assert it.handshake.revision == "2024-11-05"


@requirement("doctor:findings:as-the-server-is")
async def test_lists_are_counted_over_all_their_pages() -> None:
    whole, paged = await found(), await found(page_size=4)
    assert whole.lists is not None
    assert paged.lists is not None
    assert paged.lists.tools == whole.lists.tools


@requirement("doctor:findings:as-the-server-is")
async def test_a_server_of_2024_is_found_behind_its_stream() -> None:
    it = await found(sse=True)
    assert (it.transport, it.missing_id, it.push_stream) == ("sse", None, None)
    assert it.handshake is not None
    assert (it.handshake.revision, it.handshake.answer.status) == (None, 405)
    assert it.legacy_sse is not None
    assert it.legacy_sse.revision == "2025-11-25"
    assert it.second is not None
    assert (it.second.is_accepted, it.second.does_first_survive) == (True, True)
    assert it.state is not None
    assert (it.state.same, it.state.second, it.state.later) == (True, False, False)
    assert settings(it) == {"scope": "chat", "transport": "sse"}


@requirement("doctor:findings:as-the-server-is")
async def test_a_server_of_2026_alone_has_no_sessions_to_be_asked_about() -> None:
    it = await found(era="modern")
    assert it.is_modern_only
    assert it.modern is not None
    assert (it.modern.revisions, it.second, it.end, it.unknown_id) == (("2026-07-28",), None, None, None)
    assert it.lists is not None
    assert "remember" in it.lists.tools
    assert it.state is not None
    assert it.state.same
    assert settings(it) == {"scope": "shared"}


@requirement("doctor:findings:as-the-server-is")
async def test_a_server_of_both_eras_is_asked_in_both() -> None:
    it = await found(era="both")
    assert it.modern is not None
    assert it.modern.is_spoken
    assert it.handshake is not None
    assert it.handshake.revision == "2025-11-25"
    assert it.state is not None
    assert (it.state.same, it.state.second, it.state.modern) == (True, False, True)
    assert settings(it) == {"scope": "chat"}


# What it calls, and what it leaves.


@requirement("doctor:calls-what-was-named")
async def test_named_tools_are_called_and_their_progress_is_counted() -> None:
    wanted = Wanted(
        call=Named("progress", {"steps": 3}),
        write=Named("remember", {"key": "k", "value": "v"}),
        read=Named("recall", {"key": "k"}),
    )
    async with asyncio.timeout(120), ScriptedServer() as server:
        it = await examined(server, wanted)
        called = {(entry.tool, str(entry.args)) for entry in server.calls()}
    assert called == {
        ("progress", "{'steps': 3}"),
        ("remember", "{'key': 'k', 'value': 'v'}"),
        ("recall", "{'key': 'k'}"),
    }
    assert it.call is not None
    assert (it.call.tool, it.call.has_failed, it.call.progress, it.call.strayed) == ("progress", False, 3, 0)
    assert it.parallel is not None
    assert (it.parallel.request, it.parallel.answered) == ("progress", 3)
    assert it.state is not None
    assert (it.state.write, it.state.same, it.state.second) == ("remember", True, False)


@requirement("doctor:findings:as-the-server-is")
async def test_a_tool_that_fails_and_a_pair_that_shows_nothing_are_said_to() -> None:
    wanted = Wanted(call=Named("fail"), write=Named("echo"), read=Named("recall", {"key": "never written"}))
    async with asyncio.timeout(120), ScriptedServer() as server:
        it = await examined(server, wanted)
    assert it.call is not None
    assert (it.call.has_failed, it.call.answer.words) == (True, "failed")
    assert it.state is not None
    assert (it.state.same, it.state.second) == (False, None)


@requirement("doctor:findings:as-the-server-is")
async def test_what_changes_by_being_read_shows_nothing_and_nothing_is_written() -> None:
    wanted = Wanted(write=Named("remember", {"key": "k", "value": "v"}), read=Named("count"))
    async with asyncio.timeout(120), ScriptedServer() as server:
        it = await examined(server, wanted)
        assert server.calls("remember") == []
    assert it.state is not None
    assert it.state.same is None
    assert "count gives something else each time" in it.state.problem


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(call=Named("no_such_tool")),
        Wanted(write=Named("no_such_tool"), read=Named("recall", {"key": "k"})),
        Wanted(write=Named("remember", {"key": "k", "value": "v"}), read=Named("no_such_tool")),
    ],
)
@requirement("doctor:nothing-is-left")
async def test_a_tool_that_does_not_exist_is_said_not_to_before_anything_is_called(wanted: Wanted) -> None:
    async with asyncio.timeout(120), ScriptedServer() as server:
        with pytest.raises(UnknownTool) as raised:
            await examined(server, wanted)
        assert server.calls() == []
        await server.until(lambda: not server.sessions)
        await server.until(lambda: not server.connections)
    assert raised.value.tool == "no_such_tool"
    assert "remember" in raised.value.known


@requirement("doctor:nothing-is-left")
async def test_one_that_is_cut_short_by_its_caller_still_ends_its_session() -> None:
    wanted = Wanted(call=Named("slow", {"gate": "never"}))
    async with asyncio.timeout(120), ScriptedServer() as server:
        examination = asyncio.get_running_loop().create_task(examined(server, wanted))
        await server.entered("never")
        assert server.sessions
        examination.cancel()
        with pytest.raises(asyncio.CancelledError):
            await examination
        await server.until(lambda: not server.sessions)
        await server.until(lambda: not server.connections)
        assert server.deletes == 1
