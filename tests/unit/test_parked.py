"""States of parked calls, and headers that mirror the body: what may be believed of what a client sends."""

from __future__ import annotations

import base64
import json
from typing import Final, cast

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from holdfast.call import Abilities, Ask, AskId, InputRequired, Outcome, Reply, RpcError
from holdfast.downstream.callers import AnswerCaller
from holdfast.downstream.exchange import Exchange
from holdfast.downstream.parked import WRAPPED_TTL, Binding, ModernCall, ParkedCalls, Wrapped
from holdfast.downstream.post import Target
from holdfast.downstream.states import Kind, Seals
from holdfast.identity.caller import Identity
from holdfast.servers.merged import Merged
from holdfast.session.key import Principal
from holdfast.testing.clock import ManualClock
from holdfast.wire.headers import mirrored_value
from holdfast.wire.jsonrpc import ClientRequest
from requirements import requirement

TERMS: Final = b"\x01" * 32
ORIGIN: Final = b"\x02" * 16
IDENTITY: Final = Identity(Principal("host", "ann"), None, lacks_user=False)
REQUEST: Final = ClientRequest(1, "tools/call", {"name": "echo"})
TARGET: Final = Target(Merged("__", ManualClock()), IDENTITY, None)


class Bound(Binding, frozen=True):
    """A binding whose terms are what they are said to be."""

    said: bytes = b""

    def terms(self) -> bytes:
        return self.said


def parked(terms: bytes = TERMS) -> tuple[ParkedCalls, ModernCall, str]:
    """A call that waits for its client, and its state."""
    desk = ParkedCalls(ManualClock())
    call = ModernCall(desk, Bound(TARGET, TARGET.asker({}), REQUEST, terms), Abilities())
    return desk, call, desk.park(call)[1]


@requirement("modern:units:sealed")
def test_a_state_finds_its_call_once() -> None:
    desk, call, state = parked()
    assert desk.take(state, TERMS) is call
    assert desk.take(state, TERMS) is None


@requirement("modern:units:sealed")
@given(place=st.integers(min_value=0, max_value=63), other=st.integers(min_value=1, max_value=255))
def test_a_state_with_one_other_character_finds_nothing(place: int, other: int) -> None:
    desk, call, state = parked()
    changed = state[:place] + chr((ord(state[place]) + other) % 256) + state[place + 1 :]
    assert desk.take(changed, TERMS) is None
    assert desk.take(state, TERMS) is call


@requirement("modern:units:sealed")
@given(
    state=st.one_of(st.text(max_size=100), st.binary(max_size=64).map(lambda b: base64.urlsafe_b64encode(b).decode()))
)
def test_a_made_up_state_finds_nothing(state: str) -> None:
    desk, call, real = parked()
    assert desk.take(state, TERMS) is None
    assert desk.take(real, TERMS) is call


@requirement("modern:units:sealed")
@given(terms=st.binary(max_size=64).filter(lambda terms: terms != TERMS))
def test_a_state_with_other_terms_finds_nothing_and_is_not_used_up(terms: bytes) -> None:
    desk, call, state = parked()
    assert desk.take(state, terms) is None
    assert desk.take(state, TERMS) is call


@requirement("modern:units:sealed")
def test_a_state_of_another_process_finds_nothing() -> None:
    desk, _, _ = parked()
    _, _, foreign = parked()
    assert desk.take(foreign, TERMS) is None


def wrapped(desk: ParkedCalls, state: str, terms: bytes = TERMS) -> str:
    """The state that a client gets for that of a server."""
    said = InputRequired(Raw(json.dumps({"requestState": state, "inputRequests": {"q": 1}}).encode()), ORIGIN)
    fields = json.loads(bytes(desk.wrapped(said, terms).raw))
    assert fields["inputRequests"] == {"q": 1}
    given: str = fields["requestState"]
    return given


@requirement("both-modern:sealed")
@given(state=st.text())
def test_a_servers_own_state_comes_back_as_it_was_however_often(state: str) -> None:
    desk = ParkedCalls(ManualClock())
    outside = wrapped(desk, state)
    for _ in range(2):
        assert desk.take(outside, TERMS) == Wrapped(state, ORIGIN)
    assert desk.take(outside, b"other") is None


@requirement("both-modern:sealed")
@given(data=st.data())
def test_a_wrapped_state_with_one_other_character_is_unknown(data: st.DataObject) -> None:
    desk = ParkedCalls(ManualClock())
    outside = wrapped(desk, "state")
    place = data.draw(st.integers(min_value=0, max_value=len(outside) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda character: character != outside[place]))
    assert desk.take(outside[:place] + other + outside[place + 1 :], TERMS) is None


@requirement("both-modern:sealed")
@given(content=st.binary(max_size=40))
def test_what_one_kind_of_state_says_is_never_read_as_the_other(content: bytes) -> None:
    seals = Seals(b"k" * 32)
    sealed = {kind: seals.seal(kind, content, TERMS) for kind in Kind}
    assert len(set(sealed.values())) == len(Kind)
    for kind, state in sealed.items():
        assert Seals(b"k" * 32).unseal(state, TERMS) == (kind, content), "whoever has the key can read it"
        assert Seals().unseal(state, TERMS) is None


@requirement("both-modern:sealed")
async def test_a_wrapped_state_is_good_for_a_day() -> None:
    clock = ManualClock()
    desk = ParkedCalls(clock)
    outside = wrapped(desk, "s")
    clock.advance(WRAPPED_TTL - 1)
    assert desk.take(outside, TERMS) == Wrapped("s", ORIGIN)
    clock.advance(1)
    assert desk.take(outside, TERMS) is None


@requirement("both-modern:questions")
def test_a_question_without_a_state_passes_as_it_is() -> None:
    said = InputRequired(Raw(b'{"inputRequests":{"q":1}}'))
    assert ParkedCalls(ManualClock()).wrapped(said, TERMS) is said


@requirement("modern:units:headers")
@given(value=st.text())
def test_an_encoded_value_is_read_as_it_was_written(value: str) -> None:
    if not any(0xD800 <= ord(character) <= 0xDFFF for character in value):
        assert mirrored_value(f"=?base64?{base64.b64encode(value.encode()).decode()}?=") == value


@requirement("modern:units:headers")
@given(header=st.text(alphabet=st.characters(max_codepoint=255)))
def test_a_plain_value_is_itself_or_malformed(header: str) -> None:
    read = mirrored_value(header)
    if read is not None and read != header:
        assert header == f"=?base64?{base64.b64encode(read.encode()).decode()}?="


@requirement("modern:units:headers")
def test_malformed_values_are_none() -> None:
    for header in ("=?base64?!?=", "=?base64?ZQ?=", "=?base64?ZR==?=", "=?base64?gA==?=", "größe", "\x00"):
        assert mirrored_value(header) is None, header
    assert mirrored_value("=?base64??=") == ""


class Dying:
    """A call that ends over the first answer that it is given, as where its server has gone meanwhile."""

    def __init__(self, call: ModernCall) -> None:
        self.call = call
        self.replies = 0

    def reply(self, ask_id: AskId, reply: Reply) -> None:
        del reply
        self.replies += 1
        self.call.withdraw(AskId(3 - ask_id))
        self.call.answer(RpcError(Raw(b"{}")))

    def cancel(self, reason: str) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


@requirement("modern:units:sealed")
def test_a_call_that_ends_over_the_first_of_two_answers_is_over() -> None:
    desk, call, _ = parked()
    running = Dying(call)
    call.begin(running)
    for number in (1, 2):
        call.ask(Ask(AskId(number), "roots/list", None))
    leg = Leg()
    call.come_back(cast("AnswerCaller[Exchange]", leg), {"1": {}, "2": {}})
    assert running.replies == 1
    assert len(leg.outcomes) == 1
    assert len(desk) == 0


class Leg:
    """The second request of a call."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def answer(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
