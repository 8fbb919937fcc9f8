"""A caller in front of another: what the parts of this room change, they change in a subclass."""

from __future__ import annotations

from msgspec import Raw

from holdfast.call import Abilities, Ask, AskId, Caller, Fields, Outcome, Status


class CallerProxy:
    """Passes everything on to a caller."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    @property
    def abilities(self) -> Abilities:
        return self._caller.abilities

    def status(self, status: Status) -> None:
        self._caller.status(status)

    def progress(self, update: Fields) -> None:
        self._caller.progress(update)

    def log(self, params: Raw) -> None:
        self._caller.log(params)

    def notify(self, method: str, params: Raw | None) -> None:
        self._caller.notify(method, params)

    def ask(self, ask: Ask) -> None:
        self._caller.ask(ask)

    def withdraw(self, ask_id: AskId) -> None:
        self._caller.withdraw(ask_id)

    def suspend(self) -> None:
        self._caller.suspend()

    def answer(self, outcome: Outcome) -> None:
        self._caller.answer(outcome)
