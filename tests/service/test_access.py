"""Tokens: what each wrong one is told, what each role may do, and that no secret is at rest."""

import pytest

from tests.service.conftest import ADMIN, ANN
from vws.core.errors import Forbidden, InvalidRequest, NotFound, Unauthenticated
from vws.core.site import Role, Token
from vws.ports import Filter


def test_a_token_stands_for_its_user(rig):
    token, text = rig.services.access.create_token(ADMIN, "ann", Role.USER, None)
    caller = rig.services.access.authenticate(text)
    assert (caller.subject, caller.role, caller.token) == ("ann", Role.USER, token.id)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: None, "no token"),
        (lambda t: "", "no token"),
        (lambda t: "nonsense", "malformed"),
        (lambda t: t + "\n", "malformed"),
        (lambda t: t[:-4] + "AAAA", "not known"),
        (lambda t: t.replace("tok-", "tok-0"), "not known"),
    ],
)
def test_each_wrong_token_is_told_why(rig, change, said):
    _, text = rig.services.access.create_token(ADMIN, "ann", Role.USER, None)
    with pytest.raises(Unauthenticated, match=said):
        rig.services.access.authenticate(change(text))


def test_an_expired_and_a_revoked_token_are_told_apart(rig):
    token, text = rig.services.access.create_token(ADMIN, "ann", Role.USER, 60)
    rig.clock.time += 60
    with pytest.raises(Unauthenticated, match="expired"):
        rig.services.access.authenticate(text)
    token, text = rig.services.access.create_token(ADMIN, "ann", Role.USER, 60)
    rig.services.access.revoke_token(ADMIN, token.id)
    for _ in range(2):
        with pytest.raises(Unauthenticated, match="revoked"):
            rig.services.access.authenticate(text)
        rig.restart()
    with pytest.raises(NotFound):
        rig.services.access.revoke_token(ADMIN, token.id)


def test_a_join_token_that_is_no_longer_good_says_how_to_get_another(rig):
    used, used_text = rig.nodes.invite(ADMIN, 600)
    rig.services.access.revoke_token(ADMIN, used.id)
    _, old_text = rig.nodes.invite(ADMIN, 60)
    rig.clock.time += 60
    for text, said in ((used_text, "the join token was used"), (old_text, "the join token has expired")):
        with pytest.raises(Unauthenticated, match=said) as refused:
            rig.services.access.authenticate(text)
        assert "vws node token" in refused.value.possible


def test_no_secret_is_at_rest(rig):
    _, text = rig.services.access.create_token(ADMIN, "ann", Role.USER, None)
    secret = text.rsplit(".", 1)[1]
    (token,) = rig.store.page(Token, Filter(), after=None, limit=10).items
    assert secret not in repr(token)
    assert secret not in repr(rig.site.events(Filter(), after=0, limit=100))


@pytest.mark.parametrize(
    ("subject", "role", "lifetime_s", "field"),
    [
        ("", Role.USER, None, "subject"),
        ("a b", Role.USER, None, "subject"),
        ("x" * 65, Role.USER, None, "subject"),
        ("ann", Role.NODE, None, "role"),
        ("ann", Role.USER, 0, "lifetime_s"),
    ],
)
def test_bad_input(rig, subject, role, lifetime_s, field):
    with pytest.raises(InvalidRequest) as refused:
        rig.services.access.create_token(ADMIN, subject, role, lifetime_s)
    assert refused.value.field == field


def test_only_an_administrator_makes_tokens(rig):
    for attempt in (
        lambda: rig.services.access.create_token(ANN, "ann", Role.ADMIN, None),
        lambda: rig.services.access.revoke_token(ANN, "tok-1"),
        lambda: rig.services.access.tokens(ANN, Filter(), after=None, limit=1),
    ):
        with pytest.raises(Forbidden):
            attempt()
