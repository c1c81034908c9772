"""Headers of requests to other services, and what the receiver makes of them."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskpilot_obs import request_context
from taskpilot_obs.propagation import ReceivedRequest, inject

NAMES = st.text(st.characters(exclude_categories=()), max_size=30)
"""Names with any character, lone surrogates too."""


@settings(max_examples=200, deadline=None)
@given(tenant=NAMES, user=NAMES, session=NAMES)
def test_any_name_reaches_the_next_service(tenant: str, user: str, session: str) -> None:
    """Headers are ASCII without line breaks; each name arrives, but for lone surrogates and white space around it."""
    headers: dict[str, str] = {}
    with request_context("req-1", tenant_id=tenant, user_id=user, session_id=session):
        inject(headers, baggage=True)
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    found = ReceivedRequest(headers, trust_baggage=True).scope
    assert found.request_id == "req-1"
    for given_name, arrived in ((tenant, found.tenant), (user, found.user), (session, found.session)):
        assert (arrived or "").strip() == given_name.encode("utf-8", "replace").decode().strip()


def test_a_half_character_costs_no_other_entry(caplog: pytest.LogCaptureFixture) -> None:
    """It is replaced, and nothing is logged."""
    headers: dict[str, str] = {}
    with caplog.at_level(logging.WARNING), request_context("req-1", tenant_id="\ud800x", user_id="ann"):
        inject(headers, baggage=True)
    assert headers["baggage"].endswith("taskpilot.tenant.id=%3Fx,taskpilot.user.id=ann")
    assert caplog.text == ""
