"""Who falls into which share."""

from __future__ import annotations

from services.rollout.routing import Rollout, Route, Share

A, B, C = (Route(letter * 64, "x", "tabular", ()) for letter in "abc")
PEOPLE = [f"person {i}" for i in range(20_000)]


def test_assignment_is_stable_while_shares_grow() -> None:
    """A canary of 5 % gets 5 % of people; grown to 25 % it still has all of the first."""
    small = Rollout("x", Share(A, "champion"), (Share(B, "canary", 5.0),))
    large = Rollout("x", Share(A, "champion"), (Share(B, "canary", 25.0),))
    first = {p for p in PEOPLE if small.assign(p).route is B}
    then = {p for p in PEOPLE if large.assign(p).route is B}
    assert 0.045 < len(first) / len(PEOPLE) < 0.055
    assert 0.24 < len(then) / len(PEOPLE) < 0.26
    assert first < then
    assert first == {p for p in PEOPLE if small.assign(p).route is B}


def test_cases_divide_people_independently() -> None:
    """Who is a canary of one case is not therefore one of another."""
    one, other = (Rollout(case, Share(A, "champion"), (Share(B, "canary", 50.0),)) for case in ("x", "y"))
    both = sum(one.assign(p).route is B and other.assign(p).route is B for p in PEOPLE) / len(PEOPLE)
    assert 0.23 < both < 0.27


def test_arms_and_a_whole_share() -> None:
    """Named arms beside a canary each get theirs; 100 % is everybody."""
    mixed = Rollout("x", Share(A, "champion"), (Share(B, "canary", 10.0), Share(C, "arm", 30.0, "blue")))
    found = [mixed.assign(p) for p in PEOPLE]
    assert 0.29 < sum(share.arm == "blue" for share in found) / len(PEOPLE) < 0.31
    assert 0.58 < sum(share.route is A for share in found) / len(PEOPLE) < 0.62
    whole = Rollout("x", Share(A, "champion"), (Share(B, "canary", 100.0),))
    assert all(whole.assign(p).route is B for p in PEOPLE[:2000])
