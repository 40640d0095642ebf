"""What came from the wire cannot act on the terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.output import harmless


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/plain/path?x=1", "/plain/path?x=1"),
        ("/\x1b[31mred\x07", "/\\x1b[31mred\\x07"),
        ("/a\r\nb\tc\x00", "/a\\r\\nb\\tc\\x00"),
        ("/\u202egnp.exe\u200b", "/\\u202egnp.exe\\u200b"),
        ("/\x9b31m\udc80", "/\\x9b31m\\udc80"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("/größe/東京", "/größe/東京"),
    ],
)
def test_characters_that_act_are_shown_as_what_they_are(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_a_long_text_is_cut_and_says_so() -> None:
    assert harmless("/" + "a" * 8192, 100) == "/" + "a" * 98 + "…"


@given(st.text(max_size=300), st.integers(1, 200))
def test_whatever_came_one_printable_line_that_can_be_encoded_is_left(text: str, limit: int) -> None:
    shown = harmless(text, limit)
    assert shown.isprintable()
    shown.encode()
