"""Of requests that are not let in, one of each kind is told in a minute."""

from __future__ import annotations

from holdfast.downstream.denials import INTERVAL, MAX_KEPT, Denials
from holdfast.events import Denial, Event, RequestDenied
from holdfast.testing.clock import ManualClock


class Case:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.told: list[Event] = []
        self.denials = Denials(self.clock, self.told.append)

    def deny(self, address: str = "10.0.0.7", kind: Denial = Denial.UNKNOWN_KEY, request: str = "r1") -> None:
        self.denials.take(RequestDenied("mcp", address, kind, 401, "This key is not known here.", request=request))


def told(address: str = "10.0.0.7", kind: Denial = Denial.UNKNOWN_KEY, more: int = 0, request: str = "r1") -> Event:
    return RequestDenied("mcp", address, kind, 401, "This key is not known here.", more, request)


def test_one_is_told_in_a_minute_and_then_how_many_came_between() -> None:
    case = Case()
    for _ in range(5):
        case.deny()
    case.clock.advance(INTERVAL - 1)
    case.deny()
    assert case.told == [told()]
    case.clock.advance(1)
    case.deny(request="r2")
    assert case.told == [told(), told(more=5, request="r2")]


def test_each_address_and_each_reason_is_told_by_itself() -> None:
    case = Case()
    for address in ("10.0.0.7", "10.0.0.8"):
        for kind in (Denial.NO_KEY, Denial.UNKNOWN_KEY):
            case.deny(address, kind)
    assert len(case.told) == 4


def test_addresses_beyond_a_number_are_told_as_one_until_there_is_room() -> None:
    case = Case()
    for number in range(3 * MAX_KEPT):
        case.deny(f"fd00::{number:x}")
    assert len(case.told) == MAX_KEPT + 1
    assert case.told[-1] == told("")
    case.clock.advance(INTERVAL)
    case.deny("fd00::ffff")
    assert case.told[-1] == told("fd00::ffff")
