"""What the operator's API answers, and to whom."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pytest

from holdfast import __version__
from holdfast.config import ClientSettings, GatewaySettings, ServerSettings, key_digest
from holdfast.dashboard.api import MAX_LIMIT, Api
from holdfast.downstream.app import PAGES
from holdfast.downstream.http import Request
from holdfast.testing.clock import ManualClock
from holdfast.views import SESSION_STATES
from requirements import requirement
from unit.made_up import MadeUpGateway, server, session
from unit.recorded import RecordedResponder

SERVER: Final = ServerSettings(name="browser", command=("true",))
CLIENT: Final = ClientSettings(name="open-webui", key_digests=(key_digest("client"),))
LOCAL: Final = GatewaySettings(servers=(SERVER,))
ABROAD: Final = GatewaySettings(servers=(SERVER,), host="0.0.0.0", clients=(CLIENT,))
LOCKED: Final = ABROAD.model_copy(update={"operator_key_digest": key_digest("sesame")})
GUARDED: Final = ("/metrics", "/api/servers", "/api/sessions", "/api/events", "/api/nothing", "/healthz/more")


class Case:
    def __init__(self, gateway: MadeUpGateway | None = None, settings: GatewaySettings = LOCAL) -> None:
        self.gateway = gateway or MadeUpGateway()
        self.api = Api(self.gateway, settings, ManualClock())

    def ask(self, target: str, method: str = "GET", **headers: str) -> RecordedResponder:
        path, _, query = target.partition("?")
        responder = RecordedResponder()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.api.dispatch(Request(method, path, {"host": "127.0.0.1:8790", **given}, query=query), responder)
        return responder

    def json(self, target: str) -> Any:
        responder = self.ask(target)
        assert responder.status == 200, responder.body
        assert responder.headers[b"content-type"] == b"application/json"
        return msgspec.json.decode(responder.body)


def message(responder: RecordedResponder) -> str:
    told: dict[str, dict[str, str]] = msgspec.json.decode(responder.body)
    return told["error"]["message"]


# Health.


@requirement("operator:health:alive-and-ready-are-two-things")
def test_a_gateway_is_alive_from_its_start_and_ready_once_its_servers_were_tried() -> None:
    case = Case()
    seen: list[tuple[int | None, bytes]] = []
    for case.gateway.is_ready, case.gateway.is_draining in ((False, False), (True, False), (True, True)):
        assert case.ask("/healthz").body == b"ok"
        answer = case.ask("/readyz")
        seen.append((answer.status, answer.body))
    assert seen == [
        (503, b'{"status":"starting"}'),
        (200, b'{"status":"ready"}'),
        (503, b'{"status":"draining"}'),
    ]


@requirement("operator:access:key-or-loopback")
@pytest.mark.parametrize("settings", [LOCAL, ABROAD, LOCKED])
def test_probes_need_no_key_and_may_call_by_any_name(settings: GatewaySettings) -> None:
    case = Case(settings=settings)
    for path in ("/healthz", "/readyz"):
        assert case.ask(path, host="10.1.2.3:8790").status == 200


# Access.


@requirement("operator:access:key-or-loopback")
@pytest.mark.parametrize("path", GUARDED)
def test_with_an_operator_key_nobody_else_is_answered(path: str) -> None:
    case = Case(settings=LOCKED)
    for given in ({}, {"authorization": "Bearer client"}, {"authorization": "Basic sesame"}):
        refused = case.ask(path, **given)
        assert refused.status == 401
        assert refused.headers[b"www-authenticate"].startswith(b"Bearer")
        assert "operator's key" in message(refused)
    assert case.ask(path, authorization="Bearer sesame", host="gateway.example").status in {200, 404}


@requirement("operator:access:key-or-loopback")
@pytest.mark.parametrize("path", GUARDED)
def test_without_an_operator_key_only_this_machine_is_answered(path: str) -> None:
    refused = Case(settings=ABROAD).ask(path, authorization="Bearer client")
    assert refused.status == 403
    assert "operator_key" in message(refused)
    assert Case().ask(path).status in {200, 404}


@requirement("operator:access:a-proxy-is-not-this-machine")
@pytest.mark.parametrize(
    "headers",
    [
        {"x_forwarded_for": "203.0.113.9"},
        {"forwarded": "for=203.0.113.9"},
        {"via": "1.1 proxy"},
        {"host": "example.org"},
    ],
)
def test_what_a_proxy_passes_on_is_not_taken_for_this_machine(headers: dict[str, str]) -> None:
    refused = Case().ask("/api/servers", **headers)
    assert refused.status == 403
    assert "operator_key" in message(refused)
    locked = Case(settings=LOCKED)
    assert locked.ask("/api/servers", authorization="Bearer sesame", **headers).status == 200


@requirement("operator:access:a-new-key-shuts-out-the-old")
def test_a_reader_who_was_let_in_by_a_key_goes_with_it() -> None:
    case = Case(settings=LOCKED)
    reader = case.ask("/api/events", authorization="Bearer sesame")
    case.api.apply(LOCKED.model_copy(update={"client_idle_timeout": 9.0}))
    assert not reader.has_ended
    case.api.apply(LOCKED.model_copy(update={"operator_key_digest": key_digest("other")}))
    assert reader.has_ended
    assert case.ask("/api/servers", authorization="Bearer sesame").status == 401
    assert case.ask("/api/servers", authorization="Bearer other").status == 200


# Paths and methods.


@requirement("operator:api:mistakes-say-what-there-is")
@pytest.mark.parametrize("path", ["/api", "/api/", "/api/server", "/api/sessions/a/b", "/healthz/more", "/metrics/x"])
def test_an_unknown_path_is_told_what_there_is(path: str) -> None:
    refused = Case().ask(path)
    assert refused.status == 404
    assert all(known in message(refused) for known in ("/healthz", "/readyz", "/metrics", "/api/sessions"))


@requirement("operator:api:mistakes-say-what-there-is")
@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/healthz", b"GET, HEAD"),
        ("DELETE", "/readyz", b"GET, HEAD"),
        ("POST", "/metrics", b"GET, HEAD"),
        ("PUT", "/api/servers", b"GET, HEAD"),
        ("DELETE", "/api/sessions", b"GET, HEAD"),
        ("POST", "/api/events", b"GET, HEAD"),
        ("GET", "/api/sessions/s1", b"DELETE"),
        ("OPTIONS", "/api/sessions/s1", b"DELETE"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(method: str, path: str, allowed: bytes) -> None:
    refused = Case(MadeUpGateway(sessions=[session(1)])).ask(path, method)
    assert (refused.status, refused.headers[b"allow"]) == (405, allowed)


@requirement("operator:api:nothing-is-cached")
def test_no_answer_is_kept_or_guessed_at_by_a_browser() -> None:
    case = Case(MadeUpGateway(sessions=[session(1)]))
    answers = [case.ask(path) for path in ("/healthz", "/readyz", "/metrics", "/api/servers", "/api/sessions", "/api")]
    for answer in [*answers, case.ask("/api/events"), case.ask("/api/sessions/s1", "DELETE")]:
        assert answer.headers[b"cache-control"] == b"no-store"
        assert answer.headers[b"x-content-type-options"] == b"nosniff"


def test_head_is_answered_as_get_and_opens_no_stream() -> None:
    case = Case(MadeUpGateway([server()], [session(1)]))
    for path in ("/healthz", "/readyz", "/metrics", "/api/servers", "/api/sessions"):
        assert (case.ask(path, "HEAD").status, case.ask(path, "HEAD").headers) == (200, case.ask(path).headers)
    head = case.ask("/api/events", "HEAD")
    assert (head.status, head.body, head.has_ended) == (200, b"", True)
    assert case.gateway.feed.subscribers == 0


def test_every_page_that_the_application_hands_over_is_answered() -> None:
    case = Case()
    assert {page: case.ask(f"/{page}").status for page in PAGES} == {
        "healthz": 200,
        "readyz": 200,
        "metrics": 200,
        "api": 404,
    }


# Servers, sessions, metrics.


def test_metrics_are_handed_on_as_prometheus_reads_them() -> None:
    answer = Case().ask("/metrics")
    assert answer.body == b"holdfast_sessions 1\n"
    assert answer.headers[b"content-type"].startswith(b"text/plain; version=0.0.4")


def test_servers_come_with_how_the_gateway_stands() -> None:
    case = Case(MadeUpGateway([server("a", sessions={"idle": 2}), server("b", state="failed", reason="refused")]))
    told = case.json("/api/servers")
    assert {name: told[name] for name in ("version", "status", "client_sessions")} == {
        "version": __version__,
        "status": "ready",
        "client_sessions": 3,
    }
    assert [(one["name"], one["state"], one["reason"]) for one in told["servers"]] == [
        ("a", "ready", ""),
        ("b", "failed", "refused"),
    ]
    assert told["servers"][0]["sessions"] == {"idle": 2}


@requirement("operator:api:ten-thousand-sessions-fit-a-terminal")
def test_of_many_sessions_the_busiest_are_shown_and_all_are_counted() -> None:
    views = [session(number) for number in range(10_000)]
    views[7000] = session(7000, state="active", calls=2, idle=0.0)
    case = Case(MadeUpGateway(sessions=views))
    told = case.json("/api/sessions")
    assert (told["total"], len(told["sessions"])) == (10_000, 100)
    assert [one["id"] for one in told["sessions"][:3]] == ["s7000", "s0", "s1"]
    assert case.json("/api/sessions?limit=0") == {"total": 10_000, "sessions": []}
    assert len(case.json("/api/sessions?limit=10000")["sessions"]) == 10_000


def test_sessions_can_be_filtered() -> None:
    views = [
        session(1, server="a", client="x", state="active"),
        session(2, server="a", client="y"),
        session(3, server="b", client=None, state="opening"),
    ]
    case = Case(MadeUpGateway(sessions=views))

    def ids(query: str) -> list[str]:
        return [one["id"] for one in case.json(f"/api/sessions?{query}")["sessions"]]

    assert ids("server=a") == ["s1", "s2"]
    assert ids("server=a&client=y") == ["s2"]
    assert ids("state=active&state=opening") == ["s1", "s3"]
    assert ids("client=") == ["s3"]
    assert ids("server=%61&limit=1") == ["s1"]
    assert ids("server=c") == []


@requirement("operator:api:mistakes-say-what-there-is")
@pytest.mark.parametrize(
    "query",
    [
        "sever=a",
        "state=foo",
        "state=idle&state=foo",
        "state=",
        "limit=-1",
        "limit=ten",
        f"limit={MAX_LIMIT + 1}",
        "limit=²",
        "a&" * 200,
    ],
)
def test_a_parameter_that_means_nothing_is_refused(query: str) -> None:
    assert Case().ask(f"/api/sessions?{query}").status == 400


@requirement("operator:api:mistakes-say-what-there-is")
def test_who_asks_for_a_state_that_there_is_not_is_told_those_that_there_are() -> None:
    said = message(Case().ask("/api/sessions?state=foo"))
    assert all(state in said for state in SESSION_STATES)


@requirement("operator:api:a-session-can-be-ended")
def test_a_session_is_ended_once() -> None:
    case = Case(MadeUpGateway(sessions=[session(1), session(2)]))
    ended = case.ask("/api/sessions/s1", "DELETE")
    assert (ended.status, ended.body) == (204, b"")
    assert [view.id for view in case.gateway.session_views] == ["s2"]
    again = case.ask("/api/sessions/s1", "DELETE")
    assert again.status == 404
    assert "/api/sessions" in message(again)
