"""Users whom a host names in a token that it signed: what is believed, and what was made up."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
from typing import Any, Final

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from holdfast.config import ClientSettings, Trust
from holdfast.events import Denial
from holdfast.identity.caller import Clients, Identity
from holdfast.identity.tokens import OVERTIME, TokensInUse, UnprovenUser
from holdfast.session.key import Principal
from holdfast.testing.clock import ManualClock
from requirements import requirement
from rows import row

SECRET: Final = "a secret of forty bytes, give or take one"
TODAY: Final = 1_800_000_000.0
JWT: Final = "x-openwebui-user-jwt"
CLAIMS: Final[dict[str, Any]] = {"sub": "ann", "iss": "open-webui", "iat": TODAY, "exp": TODAY + 300, "role": "user"}
TRUST: Final = Trust(user="x-openwebui-user-id", chat="x-openwebui-chat-id", jwt_secret=SecretStr(SECRET))


def signed(secret: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A token as Open WebUI makes it; a claim of None is left out."""
    whole = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    return jwt.encode(whole, secret, algorithm=algorithm)


def by_hand(header: Any, claims: Any, secret: str = SECRET) -> str:
    """A token that no library would make, signed all the same."""
    parts = [base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in (header, claims)]
    signature = hmac.new(secret.encode(), b".".join(parts), hashlib.sha256).digest()
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


class Door:
    """A gateway's look at who comes, on a day that the test chooses."""

    def __init__(self, trust: Trust = TRUST) -> None:
        self.clock = ManualClock()
        self.today = TODAY
        self.in_use = TokensInUse(self.clock, 300, lambda: self.today)
        self.clients = Clients([ClientSettings(name="host", trust=trust)], self.in_use)

    def identify(self, token: str | None = None, **headers: str) -> Identity:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        found = self.clients.identify(named if token is None else {**named, JWT: token})
        assert found is not None
        return found

    def refuses(self, token: str) -> str:
        with pytest.raises(UnprovenUser) as refused:
            self.identify(token)
        return str(refused.value)

    def pass_time(self, seconds: float) -> None:
        self.today += seconds
        self.clock.advance(seconds)


@requirement("identity:signed:proven")
def test_the_user_is_whom_the_token_names_and_the_chat_stays_plain() -> None:
    found = Door().identify(signed(), x_openwebui_chat_id="c")
    assert (found.principal, found.chat, found.lacks_user) == (Principal("host", "ann"), "c", False)
    with_a_plain_name = Door().identify(signed(), x_openwebui_user_id="ben")
    assert with_a_plain_name.principal.user == "ann"


@requirement("identity:signed:proven")
def test_who_names_nobody_is_nobody() -> None:
    found = Door().identify(x_openwebui_chat_id="c")
    assert (found.principal.user, found.lacks_user) == (None, True)
    assert Door().identify("").lacks_user


@row(11)
@requirement("identity:signed:forged")
def test_a_name_without_a_signature_is_refused_and_not_taken_for_nobody() -> None:
    with pytest.raises(UnprovenUser, match="x-openwebui-user-id alone"):
        Door().identify(x_openwebui_user_id="ann")


FORGED: Final = {
    "another secret": signed("another secret of as many bytes as this one"),
    "the secret's end left out": signed(SECRET[:-1]),
    "no signature": signed().rpartition(".")[0] + ".",
    "two parts": signed().rpartition(".")[0],
    "alg none": jwt.encode(CLAIMS, "", algorithm="none"),
    "alg none, signed": by_hand({"alg": "none", "typ": "JWT"}, CLAIMS),
    "alg None": by_hand({"alg": "None"}, CLAIMS),
    "alg of another length": signed(SECRET * 2, "HS512"),
    "no alg": by_hand({"typ": "JWT"}, CLAIMS),
    "alg that is none of names": by_hand({"alg": ["HS256"]}, CLAIMS),
    "a header that is a list": by_hand(["HS256"], CLAIMS),
    "a critical extension": by_hand({"alg": "HS256", "crit": ["b64"], "b64": False}, CLAIMS),
    "another issuer": signed(iss="open-webui.example.org"),
    "issuers": by_hand({"alg": "HS256"}, {**CLAIMS, "iss": ["open-webui"]}),
    "no issuer": signed(iss=None),
    "no expiry": signed(exp=None),
    "an expiry in words": by_hand({"alg": "HS256"}, {**CLAIMS, "exp": "tomorrow"}),
    "an expiry beyond numbers": by_hand({"alg": "HS256"}, {**CLAIMS, "exp": float("nan")}),
    "not valid yet": signed(nbf=4_000_000_000),
    "for somebody else": signed(aud="another-gateway"),
    "no user": signed(sub=None),
    "a user without letters": signed(sub=""),
    "a user that is a number": by_hand({"alg": "HS256"}, {**CLAIMS, "sub": 1}),
    "a user that is a list": by_hand({"alg": "HS256"}, {**CLAIMS, "sub": ["ann"]}),
    "claims that are a list": by_hand({"alg": "HS256"}, [CLAIMS]),
    "expired": signed(exp=TODAY - 60),
    "expired long ago": signed(exp=1),
    "no token": "ann",
    "dots": "..",
    "not base64": "\u00e4.\u00f6.\u00fc",
}


@row(11)
@requirement("identity:signed:forged")
@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED.keys())
def test_a_token_that_was_made_up_is_refused_with_a_sentence_that_does_not_repeat_it(token: str) -> None:
    said = Door().refuses(token)
    assert said.startswith(JWT)
    assert said.endswith(".")
    assert token not in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        ("another secret", Denial.BAD_SIGNATURE),
        ("another issuer", Denial.WRONG_ISSUER),
        ("for somebody else", Denial.WRONG_AUDIENCE),
        ("expired", Denial.EXPIRED_TOKEN),
        ("no expiry", Denial.BAD_TOKEN),
        ("a user without letters", Denial.BAD_TOKEN),
        ("no token", Denial.BAD_TOKEN),
    ],
)
def test_the_log_is_told_what_is_wrong_with_a_token(case: str, kind: Denial) -> None:
    with pytest.raises(UnprovenUser) as refused:
        Door().identify(FORGED[case])
    assert refused.value.kind is kind


@row(11)
@requirement("identity:signed:forged")
@given(st.data())
def test_a_token_that_differs_anywhere_is_refused(data: st.DataObject) -> None:
    token = signed()
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.sampled_from("abcdefgABCDEFG0123456789-_.=").filter(lambda each: each != token[place]))
    changed = token[:place] + letter + token[place + 1 :]
    try:
        found = Door().identify(changed)
    except UnprovenUser:
        return
    # The last letter of base64 has bits that mean nothing: the same bytes, so the same token.
    assert place == len(token) - 1
    assert found.principal.user == "ann"


@requirement("identity:signed:expiry")
def test_a_token_in_use_outlives_its_expiry_until_it_is_left_alone() -> None:
    door, token = Door(), signed()
    digest = door.identify(token).token
    assert digest is not None
    door.in_use.enter(digest)
    door.pass_time(1000)
    assert door.identify(token).principal.user == "ann", "a request that bears it is being answered"
    door.in_use.leave(digest)
    door.pass_time(299)
    assert door.identify(token).principal.user == "ann", "one was a moment ago"
    door.pass_time(1)
    assert "expired" in door.refuses(token)


@requirement("identity:signed:expiry")
def test_no_use_keeps_a_token_for_ever() -> None:
    door, token = Door(), signed()
    digest = door.identify(token).token
    assert digest is not None
    door.in_use.enter(digest)
    door.pass_time(300 + OVERTIME)
    assert "expired" in door.refuses(token)


@requirement("identity:signed:expiry")
def test_that_one_token_is_in_use_is_no_excuse_for_another() -> None:
    door = Door()
    digest = door.identify(signed()).token
    assert digest is not None
    door.in_use.enter(digest)
    door.pass_time(400)
    assert "expired" in door.refuses(signed(name="Ann"))


@requirement("identity:signed:expiry")
def test_clocks_that_differ_a_little_do_no_harm() -> None:
    assert Door().identify(signed(exp=TODAY - 20, iat=TODAY + 20)).principal.user == "ann"


@requirement("identity:signed:expiry")
def test_tokens_that_were_left_alone_are_forgotten() -> None:
    door = Door()
    for number in range(1000):
        digest = number.to_bytes(4, "big")
        door.in_use.enter(digest)
        door.in_use.enter(digest)
        door.in_use.leave(digest)
        door.in_use.leave(digest)
        door.clock.advance(1)
    assert len(door.in_use) == 300


@requirement("identity:signed:proven")
def test_the_token_may_come_in_another_header_and_no_other_need_be_named() -> None:
    door = Door(Trust(jwt_secret=SecretStr(SECRET), jwt="x-who"))
    assert door.identify(x_who=signed()).principal.user == "ann"
    assert door.identify(signed()).lacks_user


@requirement("identity:signed:start")
def test_what_checks_tokens_is_loaded_only_where_there_is_a_secret() -> None:
    program = (
        "import sys\n"
        "from holdfast.config import ClientSettings, GatewaySettings, ServerSettings\n"
        "from holdfast.downstream.entrance import Entrance\n"
        "from holdfast.identity.tokens import TokensInUse\n"
        "from holdfast.testing.clock import ManualClock\n"
        "servers = (ServerSettings(name='a', url='http://127.0.0.1/'),)\n"
        "Entrance(GatewaySettings(servers=servers), TokensInUse(ManualClock(), 1))\n"
        "import holdfast.gateway\n"
        "print('jwt' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "False\n"
