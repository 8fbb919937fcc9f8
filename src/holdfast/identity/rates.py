"""How many requests a client, and a user whom it names, may send."""

from __future__ import annotations

from typing import Final, TypeVar

from holdfast.clock import Clock
from holdfast.config import Limits
from holdfast.session.key import Principal

BURST: Final = 10.0
"""Seconds' worth of requests that may come at once."""
MAX_BUCKETS: Final = 10_000
"""Users whose rates are known; those that have been quiet the longest are forgotten, which fills their bucket."""


W = TypeVar("W", str, Principal)


class _Bucket:
    """A token bucket, filled as time goes by."""

    __slots__ = ("_at", "_tokens")

    def __init__(self, now: float, rate: float) -> None:
        self._at = now
        self._tokens = rate * BURST

    def take(self, now: float, rate: float, count: int) -> float:
        """Take `count` tokens and return 0, or return the seconds until they are there."""
        self._tokens = min(rate * BURST, self._tokens + (now - self._at) * rate)
        self._at = now
        missing = min(count, rate * BURST) - self._tokens  # more than a bucket holds is let through when it is full
        if missing > 0:
            return missing / rate
        self._tokens -= count
        return 0.0


class Rates:
    """Bounds the requests of each client, and of each user that trusted clients name."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._client_rate = limits.client_rate
        self._user_rate = limits.user_rate
        self._clock = clock
        self._clients: dict[str, _Bucket] = {}
        self._users: dict[Principal, _Bucket] = {}

    def reconfigure(self, limits: Limits) -> None:
        """Bound by other limits from now on."""
        self._client_rate, self._user_rate = limits.client_rate, limits.user_rate

    def bounds(self, principal: Principal) -> bool:
        """Whether there is a bound for `principal`."""
        return self._client_rate is not None or (self._user_rate is not None and principal.user is not None)

    def take(self, principal: Principal, count: int = 1) -> float:
        """Admit `count` requests of `principal` and return 0, or the seconds after which to try again."""
        if self._user_rate is not None and principal.user is not None:
            wait = self._take(self._users, principal, self._user_rate, count)
            if wait:
                return wait
        if self._client_rate is not None:
            return self._take(self._clients, principal.client, self._client_rate, count)
        return 0.0

    def _take(self, buckets: dict[W, _Bucket], whose: W, rate: float, count: int) -> float:
        now = self._clock.now()
        bucket = buckets.pop(whose, None)
        if bucket is None:
            bucket = _Bucket(now, rate)
            if len(buckets) >= MAX_BUCKETS:
                del buckets[next(iter(buckets))]
        buckets[whose] = bucket  # the last one now
        return bucket.take(now, rate, count)
