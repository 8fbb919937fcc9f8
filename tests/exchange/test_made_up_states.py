"""States, answers and ids that nobody was given, over HTTP: refused as unknown, and whoever waits goes on waiting."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Coroutine
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from holdfast.config import ClientSettings, Trust
from holdfast.testing.server_tools import NOTE_URI
from modern_client import YES, ModernClient, reply_in
from requirements import requirement
from rig import Rig, next_message, rig
from rows import Figure, row

TRUSTING: Final = (ClientSettings(name="local", trust=Trust(user="x-user", chat="x-chat")),)
EXAMPLES: Final = 20
AT_ONCE: Final = 40
"""Made-up requests in each example."""

texts: Final[SearchStrategy[str]] = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=120),
    st.binary(max_size=80).map(lambda raw: base64.urlsafe_b64encode(raw).decode()),
)
numbers: Final = st.one_of(
    st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False)
)
values: Final[SearchStrategy[Any]] = st.recursive(
    st.one_of(st.none(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
lists: Final[SearchStrategy[Any]] = st.lists(values, max_size=3)
nonsense: Final[SearchStrategy[Any]] = st.one_of(
    numbers, texts, lists, st.dictionaries(texts, st.one_of(st.none(), numbers, texts, lists), min_size=1, max_size=3)
)
"""What cannot be the answers to anything."""


class Mutation:
    """A change of a state that its owner was given."""

    def __init__(self, kind: str, place: float, other: str) -> None:
        self.kind = kind
        self.place = place
        self.other = other

    def __repr__(self) -> str:
        return f"{self.kind} at {self.place:.2f} with {self.other!r}"

    def of(self, state: str) -> str:
        """Another state than `state`."""
        at = int(self.place * (len(state) - 1))
        match self.kind:
            case "cut":
                return state[:at]
            case "extended":
                return state[:at] + self.other + state[at:]
            case "repeated":
                return state + state[at:]
            case _:
                other = next(letter for letter in "AQgw" if letter != state[at])
                return state[:at] + other + state[at + 1 :]


mutations: Final = st.builds(
    Mutation,
    st.sampled_from(("cut", "extended", "repeated", "changed")),
    st.floats(0, 1),
    st.text(st.characters(codec="latin-1"), min_size=1, max_size=5),
)


class Waiting:
    """Somebody whose call waits for an answer."""

    def __init__(self, client: ModernClient, body: dict[str, Any], result: Any, key: str) -> None:
        self.client = client
        self.body = body
        self.result = result
        self.key = key

    @classmethod
    async def of(cls, client: ModernClient) -> Waiting:
        """Have a call of `client` asked something."""
        body = client.tool("ask", message="sure?")
        result, (key,) = await client.asked(body)
        return cls(client, body, result, key)

    def with_state(self, state: Any, responses: Any) -> dict[str, Any]:
        """The request of the call once more, with whatever for a state and for answers."""
        self.client.http.next_id += 1
        params = {**self.body["params"], "requestState": state, "inputResponses": responses}
        return {**self.body, "id": self.client.http.next_id, "params": params}

    async def goes_on(self) -> None:
        """Come back with the state that was given, and see the call through."""
        again = self.client.again(self.body, self.result, **{self.key: YES})
        assert reply_in(await self.client.result(again)) == YES


async def check_refused(client: ModernClient, body: dict[str, Any]) -> str:
    """The words of the refusal."""
    status, code, error = await client.refused(body)
    assert (status, code) == (400, -32602), (body["params"], error)
    return str(error["message"])


def people(running: Rig) -> tuple[ModernClient, ModernClient]:
    """Somebody who is asked, and somebody else."""
    return ModernClient(running, x_user="ann", x_chat="c"), ModernClient(running, x_user="bob", x_chat="c")


def run(work: Coroutine[Any, Any, None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(within())


@row(4, 23)
@requirement("modern:parked:made-up")
def test_no_state_that_hypothesis_finds_is_known(figure: Figure) -> None:
    tried = 0

    @settings(max_examples=EXAMPLES)
    @given(
        made_up=st.lists(texts, min_size=AT_ONCE, max_size=AT_ONCE),
        changes=st.lists(mutations, min_size=AT_ONCE, max_size=AT_ONCE),
    )
    def try_some(made_up: list[str], changes: list[Mutation]) -> None:
        async def try_all() -> None:
            nonlocal tried
            async with rig(clients=TRUSTING) as running:
                owner, other = people(running)
                waiting = await Waiting.of(owner)
                known = waiting.result["requestState"]
                refusals: set[str] = set()
                for number, state in enumerate((*made_up, *(change.of(known) for change in changes))):
                    who = other if number % 3 == 0 else owner
                    if state != known:
                        refusals.add(await check_refused(who, waiting.with_state(state, {waiting.key: YES})))
                        tried += 1
                assert len(refusals) == 1, "nobody learns why"
                assert len(running.upstream.calls()) == 1
                await waiting.goes_on()

        run(try_all())

    try_some()
    figure(f"{tried:,} made-up and mutated states: 0 known")


@row(4, 23)
@requirement("modern:parked:made-up")
def test_no_answers_that_hypothesis_finds_use_a_state_up(figure: Figure) -> None:
    tried = 0

    @settings(max_examples=EXAMPLES)
    @given(
        answers=st.lists(nonsense, min_size=AT_ONCE, max_size=AT_ONCE),
        states=st.lists(st.one_of(numbers, lists, st.just({})), max_size=5),
        strays=st.lists(st.dictionaries(texts.filter(lambda key: key != "1"), st.just(YES), max_size=3), max_size=2),
    )
    def try_some(answers: list[Any], states: list[Any], strays: list[dict[str, Any]]) -> None:
        async def try_all() -> None:
            nonlocal tried
            async with rig(clients=TRUSTING) as running:
                owner, _ = people(running)
                waiting = await Waiting.of(owner)
                for answer in answers:
                    await check_refused(owner, waiting.with_state(waiting.result["requestState"], answer))
                for state in states:
                    await check_refused(owner, waiting.with_state(state, {waiting.key: YES}))
                for stray in strays:  # they answer nothing, so the question is put again, with another state
                    before = waiting.result["requestState"]
                    waiting.result, (waiting.key,) = await owner.asked(waiting.with_state(before, stray))
                    await check_refused(owner, waiting.with_state(before, {waiting.key: YES}))
                tried += len(answers) + len(states) + len(strays)
                assert len(running.upstream.calls()) == 1
                await waiting.goes_on()

        run(try_all())

    try_some()
    figure(f"{tried:,} made-up answers: 0 taken, 0 states used up")


@row(4, 23)
@requirement("modern:listen:made-up")
def test_no_subscription_id_that_hypothesis_finds_touches_the_stream_of_another(figure: Figure) -> None:
    tried = 0

    @settings(max_examples=EXAMPLES)
    @given(
        ids=st.lists(st.one_of(texts, st.integers(-(2**53), 2**53)), min_size=AT_ONCE, max_size=AT_ONCE),
        wishes=st.lists(st.one_of(numbers, texts, lists), max_size=5),
    )
    def try_some(ids: list[str | int], wishes: list[Any]) -> None:
        async def try_all() -> None:
            nonlocal tried
            async with rig(clients=TRUSTING) as running:
                owner, other = people(running)
                body = owner.message("subscriptions/listen", notifications={"resourceSubscriptions": [NOTE_URI]})
                async with owner.post(body) as stream:
                    await next_message(stream)
                    for number in (*ids, body["id"]):
                        await ends_nothing(owner, other, number)
                        tried += 1
                    for wish in wishes:
                        await check_refused(other, other.message("subscriptions/listen", notifications=wish))
                    await owner.result(owner.tool("change_resource"))
                    assert (await next_message(stream))["method"] == "notifications/resources/updated"
                await running.until(lambda: len(running.app.modern.listeners) == 0)

        run(try_all())

    try_some()
    figure(f"{tried:,} subscription ids tried by others: 0 streams touched")


async def ends_nothing(owner: ModernClient, other: ModernClient, number: str | int) -> None:
    """Over HTTP a request is ended by closing its stream, and by no notification and no other request."""
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}
    for who in (owner, other):
        async with who.post(cancelled) as response:
            assert response.status == 202
    # The same id in another conversation is another stream.
    own = {**other.message("subscriptions/listen", notifications={"toolsListChanged": True}), "id": number}
    async with other.post(own) as stream:
        assert (await next_message(stream))["method"] == "notifications/subscriptions/acknowledged"
