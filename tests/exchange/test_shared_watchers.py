"""What a client session sets, and who counts as whom, where it uses several sessions or shares one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from holdfast.call import Call
from holdfast.downstream.clients import ClientSession, ClientSessions
from holdfast.identity.asker import Asker, next_nonce
from holdfast.identity.caller import Identity
from holdfast.servers.server import ServerConversation
from holdfast.servers.service import Conversation
from holdfast.session.key import Principal
from holdfast.testing.clock import settle
from holdfast.wire.sse import SseParser
from pool_rig import EVERYTHING, FakeCaller, FakeWatcher, PoolRig, pool_rig
from requirements import requirement
from rows import row
from unit.recorded import RecordedResponder

UNNAMED = Identity(Principal("host"), None, lacks_user=True)
NOTE = "memo://note"


def asker(identity: Identity) -> Asker:
    return Asker(identity, next_nonce())


class Listener:
    """A client session without HTTP, and what its GET stream got."""

    def __init__(self, sessions: ClientSessions, rig: PoolRig, identity: Identity = UNNAMED) -> None:
        self.client: ClientSession = sessions.create(rig.server, asker(identity), "2025-06-18", EVERYTHING)
        self._responder = RecordedResponder()
        self.client.open_push(self._responder, after=None, gone=lambda: None)
        self._identity = identity
        self._rig = rig

    @property
    def conversation(self) -> Conversation:
        return self.client.converse(replace(asker(self._identity), client=self.client.id))

    @property
    def heard(self) -> list[Any]:
        events = SseParser(100_000).feed(self._responder.body)
        return [json.loads(event.data)["method"] for event in events if event.data]

    async def call(self) -> FakeCaller:
        conversation = self.conversation
        assert isinstance(conversation, ServerConversation)
        self.client.use(conversation)
        return await self._rig.call("tool", conversation.key, FakeCaller(EVERYTHING), self.client)


@row(7)
@requirement("exchange:chats:unnamed-are-strangers")
async def test_users_whom_a_host_leaves_unnamed_hear_nothing_of_each_other_in_a_shared_session() -> None:
    async with pool_rig(scope="shared") as rig:
        sessions = ClientSessions(rig.clock, 600)
        first, second = Listener(sessions, rig), Listener(sessions, rig)
        await first.call()
        rig.fake.calls[-1].text("done")
        await settle()
        call = await second.call()
        rig.fake.session.log("a late line of the first one's call")
        rig.fake.session.ask("elicitation/create", message="a late question")
        await settle()
        assert (call.logs, call.notified, call.asks) == ([], [], [])
        assert first.heard == second.heard == []
        rig.fake.calls[-1].text("done")
        await settle()
        rig.fake.session.log("a line between calls")
        assert first.heard == second.heard == []
        sessions.close()


@row(7)
@requirement("exchange:chats:unnamed-are-strangers")
async def test_calls_of_unnamed_users_without_a_session_are_of_different_people() -> None:
    async with pool_rig(scope="shared") as rig:
        keys = [rig.server.key_for(asker(UNNAMED)) for _ in range(2)]
        await rig.answered(keys[0])
        call = await rig.call("tool", keys[1], FakeCaller(EVERYTHING))
        assert len(rig.fake.sessions) == 1
        rig.fake.session.log("a late line of the first one's call")
        rig.fake.session.ask("elicitation/create", message="a late question")
        await settle()
        assert (call.logs, call.asks) == ([], [])
        rig.fake.calls[-1].text("done")
        await settle()


@row(7)
@requirement("exchange:chats:unnamed-are-strangers")
async def test_one_who_only_listens_without_a_name_makes_a_session_shared() -> None:
    async with pool_rig(scope="shared") as rig:
        sessions = ClientSessions(rig.clock, 600)
        alice = Listener(sessions, rig, Identity(Principal("host", "alice"), None, lacks_user=False))
        listening = Listener(sessions, rig)
        listening.client.use(listening.conversation)
        await alice.call()
        rig.fake.session.log("of alice")
        assert listening.heard == []
        rig.fake.calls[-1].text("done")
        await settle()
        rig.fake.session.log("of alice, late")
        assert listening.heard == []
        sessions.close()


async def test_the_only_user_of_a_shared_session_hears_it_as_before() -> None:
    """Else the silence above would mean nothing."""
    async with pool_rig(scope="shared") as rig:
        sessions = ClientSessions(rig.clock, 600)
        alice = Listener(sessions, rig, Identity(Principal("host", "alice"), None, lacks_user=False))
        alice.client.log_level = "debug"
        await alice.call()
        rig.fake.calls[-1].text("done")
        await settle()
        rig.fake.session.log("late")
        assert alice.heard == ["notifications/message"]
        sessions.close()


async def test_a_client_session_of_an_unnamed_user_is_found_again_by_its_client() -> None:
    async with pool_rig(scope="shared") as rig:
        sessions = ClientSessions(rig.clock, 600)
        client = Listener(sessions, rig).client
        assert sessions.find(client.id, Principal("host"), rig.server) is client
        assert sessions.find(client.id, Principal("host", "alice"), rig.server) is None
        assert sessions.find(client.id, client.principal, rig.server) is None
        sessions.close()


@requirement("exchange:relay:logs")
async def test_a_level_reaches_every_session_that_a_client_session_uses() -> None:
    async with pool_rig() as rig:
        watcher = FakeWatcher()
        keys = [rig.key(chat) for chat in ("c1", "c2", "c3")]
        for key in keys:
            await rig.answered(key)
        for key in keys[:2]:
            rig.server.attach(key, watcher)
        caller = FakeCaller()
        rig.server.set_level(keys[0], "debug", caller, watcher)
        await settle()
        assert caller.result == {}
        assert [session.level for session in rig.pool.sessions] == ["debug", "debug", None]
        rig.server.attach(keys[2], watcher)
        await settle()
        assert [session.level for session in rig.pool.sessions] == ["debug"] * 3
        assert [len(s.got("logging/setLevel")) for s in rig.fake.sessions] == [1, 1, 1]
        for key in keys:
            rig.server.detach(key, watcher)


@requirement("exchange:relay:logs")
async def test_a_level_that_hides_the_usual_leaves_with_who_set_it() -> None:
    async with pool_rig() as rig:
        key = rig.key()
        await rig.answered(key)
        (session,) = rig.pool.sessions
        *watchers, quiet = (FakeWatcher() for _ in range(4))
        for watcher, level in zip(watchers, ("error", "warning", "debug"), strict=True):
            rig.server.attach(key, watcher)
            rig.server.set_level(key, level, FakeCaller(), watcher)
            await settle()
        levels = ["error", "warning", "debug"]
        for watcher in reversed(watchers):
            rig.server.detach(key, watcher)
            await settle()
            assert session.level == "debug", "it hides nothing"
        rig.server.attach(key, quiet)
        rig.server.set_level(key, "error", FakeCaller(), quiet)
        await settle()
        rig.server.detach(key, quiet)
        await settle()
        assert session.level == "info"
        sent = [request.params["level"] for request in rig.fake.session.got("logging/setLevel")]
        assert sent == [*levels, "error", "info"]


@requirement("exchange:relay:subscriptions")
@pytest.mark.parametrize("leaves_by", ["unsubscribing", "forgetting"])
async def test_who_lets_go_of_a_resource_in_one_chat_still_hears_of_it_in_another(leaves_by: str) -> None:
    async with pool_rig() as rig:
        sessions = ClientSessions(rig.clock, 600)
        listener = Listener(sessions, rig, Identity(Principal("host", "alice"), None, lacks_user=False))
        client, keys = listener.client, [rig.key("c1"), rig.key("c2")]
        for key in keys:
            await rig.answered(key)
            client.use(ServerConversation(rig.server, key, asker(UNNAMED)))
            rig.server.subscribe(key, Call("resources/subscribe", {"uri": NOTE}), FakeCaller(), client)
        await settle()
        one, two = rig.fake.sessions
        if leaves_by == "unsubscribing":
            rig.server.unsubscribe(keys[1], Call("resources/unsubscribe", {"uri": NOTE}), FakeCaller(), client)
        else:
            rig.server.detach(keys[1], client)
        await settle()
        assert [len(s.got("resources/unsubscribe")) for s in (one, two)] == [0, 1]
        assert [s.subscriptions for s in rig.pool.sessions] == [{NOTE}, set()]
        for session in rig.pool.sessions:
            session.pushed("notifications/resources/updated", Raw(json.dumps({"uri": NOTE}).encode()))
        assert listener.heard == ["notifications/resources/updated"]
        sessions.close()


@requirement("pool:loss:dirty-is-told-once")
async def test_a_client_that_leaves_takes_from_nobody_the_word_that_the_session_was_lost() -> None:
    async with pool_rig() as rig:
        leaver, stayer, key = FakeWatcher(), FakeWatcher(), rig.key()
        for watcher in (leaver, stayer):
            rig.server.attach(key, watcher)
        rig.server.subscribe(key, Call("resources/subscribe", {"uri": NOTE}), FakeCaller(), leaver)
        await settle()
        await rig.answered(key)
        rig.fake.session.die()
        await settle()
        await rig.passes(1)
        assert rig.pool.session_of(key) is not None
        rig.server.detach(key, leaver)
        await settle()
        assert len(rig.fake.session.got("resources/unsubscribe")) == 1
        call = await rig.call("tool", key)
        assert call.code == -31006
        rig.server.detach(key, stayer)
