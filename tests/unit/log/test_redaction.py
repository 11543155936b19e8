"""Redaction of log records: the message, each field and the traceback, before anything is cut."""

from __future__ import annotations

import copy
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncloud.errors import HIDDEN
from syncloud.log.redaction import cleaned
from tests.support.secrets import SECRET, TOKEN

pytestmark = pytest.mark.usefixtures("known")
FIELDS = ("path", "error", "count")


def record(
    text: str,
    *arguments: object,
    level: int = logging.WARNING,
    raised: Exception | None = None,
    **fields: object,
) -> logging.LogRecord:
    exc_info = None
    if raised is not None:
        try:
            raise raised
        except Exception:  # noqa: BLE001 - for its traceback
            exc_info = sys.exc_info()
    made = logging.LogRecord("library", level, __file__, 1, text, arguments, exc_info)
    made.__dict__.update(fields)
    return made


def test_a_record_without_a_secret_is_passed_on_as_it_is() -> None:
    given = record("%s of %d", "one", 2, path="a/b", count=7)
    assert cleaned(given, FIELDS) is given


@pytest.mark.parametrize("secret", [SECRET, TOKEN])
def test_message_and_fields_have_no_secret_and_numbers_stay(secret: str) -> None:
    clean = cleaned(
        record(
            "sent %r to %s",
            {"token": secret},
            secret,
            path=f"dir/{secret}",
            error=ValueError(secret),
            count=7,
        ),
        FIELDS,
    )
    assert clean.getMessage() == f"sent {{'token': '{HIDDEN}'}} to {HIDDEN}"
    assert (clean.__dict__["path"], clean.__dict__["error"]) == (f"dir/{HIDDEN}", HIDDEN)
    assert clean.__dict__["count"] == 7


def test_the_record_of_others_is_left_alone() -> None:
    """Other handlers get the same object."""
    given = record("%s", SECRET, path=SECRET)
    before = copy.copy(given.__dict__)
    cleaned(given, FIELDS)
    assert given.__dict__ == before


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.WARNING])
def test_below_an_error_type_and_text_stand_for_the_traceback(level: int) -> None:
    clean = cleaned(
        record("refreshing failed", level=level, raised=ValueError(f"x {TOKEN}")), FIELDS
    )
    assert clean.__dict__["error"] == f"ValueError: x {HIDDEN}"
    assert clean.exc_info is None
    assert clean.exc_text is None


def test_the_traceback_of_an_error_stays_without_its_secrets() -> None:
    clean = cleaned(
        record("unexpected", level=logging.ERROR, raised=ValueError(f"x {TOKEN}")), FIELDS
    )
    assert clean.exc_info is None
    assert str(clean.exc_text).startswith("Traceback (most recent call last):")
    assert str(clean.exc_text).endswith(f"ValueError: x {HIDDEN}")


@given(st.text(), st.text(), st.sampled_from([SECRET, TOKEN]))
def test_no_field_and_no_message_keeps_a_secret(before: str, after: str, secret: str) -> None:
    text = f"{before}{secret}{after}"
    clean = cleaned(record("%s", text, path=text), FIELDS)
    assert secret not in clean.getMessage()
    assert secret not in clean.__dict__["path"]
