"""The baggage header: our member, and those of others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.baggage import MAX_BYTES, MAX_MEMBERS, read, replace

OWN = b"cohort.arm=canary"


@pytest.mark.parametrize(
    ("baggage", "said"),
    [
        (b"cohort.arm=canary", ("canary", False)),
        (b" cohort.arm\t=  canary ", ("canary", False)),
        (b"user=1;p=2,cohort.arm=stable , k=v", ("stable", False)),
        (b"cohort.arm=can%61ry", ("canary", False)),
        (b"cohort.arm=%C3%A4", ("ä", False)),
        (b"cohort.arm=%ff", ("�", False)),
        (b"cohort.arm=a%zz", ("a%zz", False)),
        (b"cohort.arm=a+b", ("a+b", False)),
        (b"cohort.arm=a=b", ("a=b", False)),
        (b"cohort.arm=canary;mirror", ("canary", True)),
        (b"cohort.arm=canary ; p=1 ; mirror ", ("canary", True)),
        (b"cohort.arm=canary;mirrored", ("canary", False)),
        (b"cohort.arm", ("", False)),
        (b"cohort.arm;mirror", ("", True)),
        (b"Cohort.Arm=canary", None),
        (b"cohort.army=canary,xcohort.arm=canary,k=cohort.arm=canary", None),
        (b"cohort.arm=canary,cohort.arm=stable", None),
        (b"cohort.arm=canary,cohort.arm=canary", None),
        (b"", None),
        (b",,", None),
    ],
)
def test_our_member_is_read_as_w3c_baggage_writes_it(baggage: bytes, said: tuple[str, bool] | None) -> None:
    """W3C Baggage section 3.3.1: keys have case, values are percent-encoded UTF-8, what is none becomes U+FFFD."""
    assert read(baggage) == said


@pytest.mark.parametrize(
    ("baggage", "sent"),
    [
        (b"", OWN),
        (b"cohort.arm=stable", OWN),
        (b"cohort.arm", OWN),
        (b"a=1 , cohort.arm = stable;x=1,, b=2;p", b"a=1 , b=2;p," + OWN),
        (b"cohort.army=1", b"cohort.army=1," + OWN),
    ],
)
def test_our_member_is_replaced_and_others_stay(baggage: bytes, sent: bytes) -> None:
    assert replace(baggage, OWN) == sent


def test_a_full_list_still_has_our_member() -> None:
    """W3C Baggage section 3.3.2: members beyond the limits may be dropped, and then whole ones are."""
    many = b",".join(b"k%d=v" % n for n in range(300))
    sent = replace(many, OWN).split(b",")
    assert sent == [b"k%d=v" % n for n in range(MAX_MEMBERS - 1)] + [OWN]
    long = [b"a=" + b"x" * 4000, b"b=" + b"x" * 4000, b"c=" + b"x" * 400, b"d=1"]
    assert replace(b",".join(long), OWN) == b",".join([long[0], long[1], long[3], OWN])
    exact = b"a=" + b"x" * (MAX_BYTES - len(OWN) - 3)
    assert len(replace(exact, OWN)) == MAX_BYTES
    assert replace(exact + b"x", OWN) == OWN


@given(st.binary(max_size=200), st.booleans())
def test_whatever_a_client_says_the_arm_told_is_ours(before: bytes, copy: bool) -> None:
    own = OWN + b";mirror" * copy
    sent = replace(before, own)
    assert read(sent) == ("canary", copy)
    assert len(sent) <= MAX_BYTES
