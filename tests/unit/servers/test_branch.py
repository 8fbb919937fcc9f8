"""What comes back from one of several servers, in the client's words."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

from msgspec import Raw

from holdfast.call import NOBODY, Abilities, Ask, AskId, Fields, Outcome, Reply, Result, Status
from holdfast.servers.branch import UPDATED, Branch, BranchCaller, MarkedReader, MarkedSubscriber, progress_token
from holdfast.session.key import Principal, SessionKey
from holdfast.session.retry import unavailable
from requirements import requirement

KEY = SessionKey("s", "", "", "chat", Principal("local"), "chat:1")


class Hearing:
    """A client session, or the caller of a request, that notes what it is told."""

    def __init__(self) -> None:
        self.log_level: str | None = None
        self.told: list[tuple[str, Any]] = []
        self.asks: list[Ask] = []
        self.replies: list[Callable[[Reply], None]] = []
        self.outcomes: list[Outcome] = []

    @property
    def principal(self) -> Principal:
        return Principal("local")

    @property
    def abilities(self) -> Abilities:
        return NOBODY

    @property
    def listens(self) -> bool:
        return False

    def subscriptions_of(self, key: SessionKey | None) -> set[str]:
        raise AssertionError(key)

    def push(self, method: str, params: Raw | None) -> None:
        self.told.append((method, params and json.loads(bytes(params))))

    def withdraw(self, ask_id: AskId) -> None:
        self.asks = [ask for ask in self.asks if ask.id != ask_id]


class Watching(Hearing):
    def ask(self, ask: Ask, reply: Callable[[Reply], None]) -> None:
        self.asks.append(ask)
        self.replies.append(reply)


class Calling(Hearing):
    notify = Hearing.push

    def ask(self, ask: Ask) -> None:
        self.asks.append(ask)

    def status(self, status: Status) -> None: ...

    def progress(self, update: Fields) -> None: ...

    def log(self, params: Raw) -> None: ...

    def suspend(self) -> None: ...

    def answer(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


def question(number: int, **params: Any) -> Ask:
    return Ask(AskId(number), "elicitation/create", Raw(json.dumps(params).encode()))


def branches(watcher: Hearing, count: int = 2) -> list[Branch]:
    return [Branch(cast("Any", watcher), cast("Any", None)) for _ in range(count)]


@requirement("merged:calls:reach-the-right-caller")
def test_equal_progress_tokens_of_two_servers_are_two_and_each_leads_back_while_its_question_is_open() -> None:
    watcher, calling = Watching(), Calling()
    one, two = branches(watcher)
    one.ask(question(1, message="one", _meta={"progressToken": 7, "x": 1}), lambda _: None)
    asking = BranchCaller(calling, two)
    asking.ask(question(2, message="two", _meta={"progressToken": 7}))
    (pushed,), (asked,) = watcher.asks, calling.asks
    tokens = [progress_token(ask.params) for ask in (pushed, asked)]
    assert len({*tokens, b"7"}) == 3
    assert [[each and bytes(each) for each in map(branch.own_token, tokens)] for branch in (one, two)] == [
        [b"7", None],
        [None, b"7"],
    ]
    assert pushed.params is not None
    assert json.loads(bytes(pushed.params)) == {"message": "one", "_meta": {"progressToken": int(tokens[0]), "x": 1}}
    watcher.replies[0](Reply(result=Raw(b"{}")))
    asking.answer(Result(Raw(b"{}")))
    assert [branch.own_token(token) for branch, token in zip((one, two), tokens, strict=True)] == [None, None]


@requirement("merged:calls:reach-the-right-caller")
def test_a_question_that_is_taken_back_takes_no_progress_any_more() -> None:
    watcher, calling = Watching(), Calling()
    one, two = branches(watcher)
    one.ask(question(1, _meta={"progressToken": "t"}), lambda _: None)
    asking = BranchCaller(calling, two)
    asking.ask(question(2, _meta={"progressToken": "t"}))
    tokens = [progress_token(watcher.asks[0].params), progress_token(calling.asks[0].params)]
    one.withdraw(AskId(1))
    asking.withdraw(AskId(2))
    assert (watcher.asks, calling.asks) == ([], [])
    assert [one.own_token(tokens[0]), two.own_token(tokens[1])] == [None, None]


def test_a_question_without_a_token_goes_on_as_it_is() -> None:
    (branch,) = branches(Watching(), 1)
    for params in (None, Raw(b"{}"), Raw(b'{"_meta":null}'), Raw(b'{"_meta":{}}'), Raw(b'{ "a" : 1 }')):
        ask = Ask(AskId(1), "x", params)
        assert branch.put(ask) is ask
    assert branch.own_token(b"") is None


@requirement("merged:resources:subscriptions")
def test_updates_bear_the_clients_uri_below_it_as_well_and_only_where_it_is_marked() -> None:
    watcher, calling = Watching(), Calling()
    (branch,) = branches(watcher, 1)
    as_it_is = Raw(b'{"uri":"m://dir/file", "x": 1.0}')
    branch.push(UPDATED, as_it_is)
    MarkedSubscriber(calling, branch, "m://dir", "two+m://dir").answer(Result(Raw(b"{}")))
    branch.push(UPDATED, as_it_is)
    BranchCaller(calling, branch).notify(UPDATED, Raw(b'{"uri":"m://dir"}'))
    branch.push(UPDATED, Raw(b'{"uri":"m://directory"}'))
    branch.push(UPDATED, Raw(b'{"uri":7}'))
    branch.push("notifications/message", Raw(b'{"uri":"m://dir"}'))
    assert [params["uri"] for _, params in watcher.told] == [
        "m://dir/file",
        "two+m://dir/file",
        "m://directory",
        7,
        "m://dir",
    ]
    assert calling.told == [(UPDATED, {"uri": "two+m://dir"})]


@requirement("merged:names:bounded")
def test_a_subscription_that_is_refused_is_not_remembered() -> None:
    calling = Calling()
    (branch,) = branches(Watching(), 1)
    MarkedSubscriber(calling, branch, "m://a", "two+m://a").answer(unavailable("two", "gone"))
    assert branch.public_uris == {}
    MarkedSubscriber(calling, branch, "m://a", "two+m://a").answer(Result(Raw(b"{}")))
    MarkedSubscriber(calling, branch, "m://a", "TWO+m://a").answer(unavailable("two", "gone"))
    assert branch.public_uris == {"m://a": "two+m://a"}


@requirement("merged:resources:marked")
def test_contents_bear_the_uri_that_was_asked_for_and_errors_pass() -> None:
    calling = Calling()
    reader = MarkedReader(calling, "m://a", "two+m://a")
    reader.answer(
        Result(Raw(b'{"contents":[{"uri":"m://a","text":"x"},{"uri":"m://a/b"},{"uri":"n://c"}],"_meta":{}}'))
    )
    failed = unavailable("two", "gone")
    reader.answer(failed)
    first = calling.outcomes[0]
    assert isinstance(first, Result)
    found = json.loads(bytes(first.raw))
    assert [each["uri"] for each in found["contents"]] == ["two+m://a", "two+m://a/b", "n://c"]
    assert found["_meta"] == {}
    assert calling.outcomes[1] is failed


def test_what_a_replaced_server_was_subscribed_to_its_successor_is() -> None:
    old, new = branches(Watching())
    old.subscriptions_of(KEY).add("m://a")
    old.public_uris["m://a"] = "two+m://a"
    new.inherit(old, KEY, KEY)
    assert new.subscriptions_of(KEY) == {"m://a"}
    assert new.public_uris == old.public_uris
