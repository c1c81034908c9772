"""What is renewed in forked children."""

from __future__ import annotations

import os

import pytest

from taskpilot_obs._support.fork import _functions, call_in_child, renew_in_child

_EACH = 3


class _Counting:
    """Counts its renewals, which may fail."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails
        self.renewed = 0

    def after_fork(self) -> None:
        if self.fails:
            raise RuntimeError("not renewed")
        self.renewed += 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_renewal_that_fails_keeps_no_other_from_being_done() -> None:
    """Functions and objects are renewed in a child whichever of the others raise."""
    broken = _Counting(fails=True)
    renewables = [_Counting(fails=number % 2 == 0) for number in range(2 * _EACH)]
    for renewable in renewables:
        renew_in_child(renewable)
    call_in_child(broken.after_fork)
    try:
        child = os.fork()
        if child == 0:
            os._exit(sum(renewable.renewed for renewable in renewables))
    finally:
        _functions.remove(broken.after_fork)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == _EACH
