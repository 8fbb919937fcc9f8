"""One user opens chats without end: row 22."""

from __future__ import annotations

from holdfast.config import Limits
from holdfast.session.quota import Quota
from holdfast.testing.clock import settle
from pool_rig import PoolRig, pool_rig
from requirements import requirement
from rows import Figure, row


def idle_chats(rig: PoolRig, user: str) -> int:
    return sum(view.user == user and view.state == "idle" for view in rig.pool.views())


@requirement("pool:quota:a-flood-evicts-only-its-own")
@row(22)
async def test_a_user_who_opens_ten_thousand_chats_evicts_none_of_anothers(figure: Figure) -> None:
    async with pool_rig(quota=Quota(Limits(sessions_per_user=100))) as rig:
        rig.fake.answers["tools/call"] = lambda request: request.text("ok")
        for n in range(50):
            await rig.answered(rig.key(f"b{n}", user="bob"))
        for n in range(10_000):
            rig.start(key=rig.key(f"a{n}", user="mallory"))
            if n % 50 == 0:
                await settle()
                rig.fake.sessions[50:] = [s for s in rig.fake.sessions[50:] if not s.is_terminated]
        await settle()
        assert idle_chats(rig, "bob") == 50
        assert idle_chats(rig, "mallory") <= 100
        assert not any(session.is_over for session in rig.fake.sessions[:50])
        figure(f"10,000 chats of one user: {50 - idle_chats(rig, 'bob')} of another's 50 idle sessions evicted")
