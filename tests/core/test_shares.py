"""Fair share as in Slurm's classic algorithm, and the laws of decay."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vws.core.membership import VO, Membership, User
from vws.core.shares import FairShare, Shares, decayed

DAY_S = 86400.0
times = st.floats(0, 1e6)
rates = st.floats(0.1, 1e3)
half_lives = st.floats(100, 1e6)


def close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6)


@given(rates, times, times, times, half_lives)
def test_use_counts_half_after_a_half_life(rate, start, length, age, half_life):
    at = start + length + age
    now, later = (decayed(rate, start, start + length, t, half_life) for t in (at, at + half_life))
    assert close(later, now / 2)
    assert 0 <= now <= rate * (start + length - start) * (1 + 1e-9)


@given(rates, times, times, times, times, half_lives)
def test_a_use_may_be_counted_in_pieces(rate, start, first, second, age, half_life):
    middle, end = start + first, start + first + second
    at = end + age
    whole = decayed(rate, start, end, at, half_life)
    pieces = decayed(rate, start, middle, at, half_life) + decayed(rate, middle, end, at, half_life)
    assert close(whole, pieces)


def test_without_a_half_life_nothing_is_forgotten():
    assert decayed(2, 0, 100, 1e9, 0) == 200
    fair = FairShare(Membership(), 0)
    fair.charge("ann", 2, 0, 100)
    assert fair.usage("ann", 1e9) == 200


@given(st.lists(st.tuples(rates, times, times), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_charges_does_not_matter(uses, random):
    shuffled = list(uses)
    random.shuffle(shuffled)
    one, other = FairShare(Membership(), DAY_S), FairShare(Membership(), DAY_S)
    for fair, given_ in ((one, uses), (other, shuffled)):
        for rate, start, length in given_:
            fair.charge("ann", rate, start, start + length)
    assert close(one.usage("ann", 3e6), other.usage("ann", 3e6))


def test_what_goes_on_counts_until_now():
    charged, going = FairShare(Membership(), DAY_S), FairShare(Membership(), DAY_S)
    for fair in (charged, going):
        fair.charge("bob", 1, 0, 1000)
    charged.charge("ann", 3, 500, 1000)
    assert close(charged.shares(1000).factor("ann"), going.shares(1000, [("ann", 3, 500)]).factor("ann"))
    assert going.shares(1000).factor("ann") > going.shares(1000, [("ann", 3, 500)]).factor("ann")


def test_exactly_ones_part_is_one_half():
    equal = Membership({"all": VO(("ann", "bob"))})
    shares = Shares(equal, {"ann": 7.0, "bob": 7.0})
    # The VO used everything and is everything: E = 1/2 + (1 - 1/2)/2 for each, against S = 1/2.
    assert shares.factor("ann") == pytest.approx(2 ** (-0.75 / 0.5))
    alone = Shares(Membership({"a": VO(("ann",)), "b": VO(("bob",))}), {"ann": 7.0, "bob": 7.0})
    assert alone.factor("ann") == pytest.approx(0.5)


def test_a_member_bears_what_its_vo_used():
    who = Membership({"a": VO(("ann", "amy"), share=3), "b": VO(("bob",), share=1)}, users={"amy": User(share=2)})
    shares = Shares(who, {"ann": 30.0, "bob": 10.0})
    # a used 3/4 and has 3/4 of the shares; amy has 2/3 of a's: E = (3/4) * (2/3), S = (2/3) * (3/4).
    assert shares.factor("amy") == pytest.approx(2 ** (-0.5 / 0.5))
    # ann: U = 3/4, E = U + (3/4 - U) / 3, S = (1/3) * (3/4).
    assert shares.factor("ann") == pytest.approx(2 ** (-0.75 / 0.25))
    assert shares.factor("bob") == pytest.approx(2 ** (-0.25 / 0.25))


def test_who_used_less_of_a_larger_share_comes_first():
    who = Membership({"a": VO(("ann",), share=3), "b": VO(("bob",), share=1)})
    shares = Shares(who, {"ann": 10.0, "bob": 10.0})
    assert shares.factor("ann") > shares.factor("bob")


def test_a_share_of_nothing_comes_last_and_no_use_comes_first():
    who = Membership({"a": VO(("ann",), share=0), "b": VO(("bob",))})
    assert Shares(who, {"ann": 1.0, "bob": 1.0}).factor("ann") == 0
    assert Shares(who).factor("ann") == 1
    assert Shares(who, {"bob": 5.0}).factor("guest") == 1


def test_users_without_a_vo_share_as_equals():
    shares = Shares(Membership(), {"ann": 30.0, "bob": 10.0})
    assert shares.factor("bob") > shares.factor("ann")
    # A third one: nothing of his own, a third of what the others used.
    assert shares.factor("cid") == pytest.approx(2 ** (-(1 / 3) / (1 / 3)))


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1e9)), st.sampled_from("abcdefg"))
def test_a_factor_is_a_part_of_one(usage, user):
    who = Membership({"one": VO(("a", "b"), share=2), "two": VO(("c",))}, users={"d": User(share=5)})
    assert 0 <= Shares(who, usage).factor(user) <= 1


@given(st.floats(1, 1e6), st.floats(1, 1e6))
def test_more_use_never_raises_a_factor(used, more):
    who = Membership({"one": VO(("a", "b")), "two": VO(("c",))})
    before = Shares(who, {"a": used, "b": 5.0, "c": 7.0}).factor("a")
    after = Shares(who, {"a": used + more, "b": 5.0, "c": 7.0}).factor("a")
    assert after <= before + 1e-12
