"""Who belongs to whom, and what contradicts itself."""

import pytest

from vws.core.errors import InvalidRequest
from vws.core.membership import NO_LIMITS, VO, Limits, Membership, User, UserGroup


def members() -> Membership:
    return Membership(
        {"atlas": VO(("ann", "bob"), share=3, priority=5, limits=Limits(concurrent=8)), "cms": VO(("cid",))},
        {"students": UserGroup(("bob", "cid"), Limits(total=4)), "night": UserGroup(("bob",))},
        {"bob": User(share=2, priority=1, limits=Limits())},
        each_user=Limits(concurrent=2),
        each_group=Limits(ahead_s=60),
        each_vo=Limits(total=9),
    )


def test_a_user_has_one_vo_and_any_number_of_groups():
    who = members()
    assert [who.vo_of(user) for user in ("ann", "cid", "dan")] == ["atlas", "cms", ""]
    assert [who.groups_of(user) for user in ("ann", "bob")] == [(), ("students", "night")]
    assert [who.priority_of(user) for user in ("ann", "bob", "dan")] == [5, 6, 0]


def test_limits_of_its_own_replace_those_for_each():
    who = members()
    assert {p.title: p.limits for p in who.parties("bob")} == {
        "the user bob": Limits(),
        "the group students": Limits(total=4),
        "the group night": Limits(ahead_s=60),
        "the VO atlas": Limits(concurrent=8),
    }
    assert {p.title: p.limits for p in who.parties("cid")}["the VO cms"] == Limits(total=9)
    assert [(p.title, p.limits) for p in who.parties("dan")] == [("the user dan", Limits(concurrent=2))]


def test_a_party_counts_the_leases_of_all_its_users():
    by_title = {p.title: p.users for p in members().parties("bob")}
    assert by_title["the VO atlas"] == {"ann", "bob"}
    assert by_title["the user bob"] == {"bob"}


def test_days_alone_limit_nothing():
    assert not Limits(days=7).bind
    assert not NO_LIMITS.bind
    assert Limits(node_hours=0).bind


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (lambda: Membership({"a": VO(("x",)), "b": VO(("x",))}), "vos.b.users"),
        (lambda: Membership({"a": VO(share=-1)}), "vos.a.share"),
        (lambda: Membership(users={"x": User(share=float("nan"))}), "users.x.share"),
        (lambda: Membership(each_user=Limits(total=-1)), "policy.each_user.total"),
        (lambda: Membership(groups={"g": UserGroup(limits=Limits(days=0))}), "groups.g.limits.days"),
        (lambda: Membership(groups={"g": UserGroup(limits=Limits(days=36_501))}), "groups.g.limits.days"),
    ],
)
def test_what_contradicts_itself_is_named(wrong, field):
    with pytest.raises(InvalidRequest) as error:
        wrong()
    assert error.value.field == field
