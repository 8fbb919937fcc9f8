"""A session as the API shows it."""

from __future__ import annotations

from holdfast.session.session import Session
from holdfast.views import SessionView


def view(session: Session, server: str, now: float) -> SessionView:
    """How `session` with `server` stands at `now`."""
    key = session.key
    principal = None if key is None else key.principal
    return SessionView(
        id=session.id,
        server=server,
        key=session.key_digest,
        state=session.state.value,
        scope="spare" if key is None else key.scope,
        client=None if principal is None else principal.client,
        user=None if principal is None else principal.user,
        age=round(now - session.opened_at, 3),
        idle=0.0 if session.leases else round(now - session.last_used_at, 3),
        calls=len(session.calls),
        watchers=len(session.watchers),
        subscriptions=len(session.subscriptions),
        is_dirty=session.is_dirty,
    )
