"""What others wrote into a file never steers the terminal, the log, a page or a spreadsheet."""

from __future__ import annotations

import io
import logging
import sys
import unicodedata

import jinja2
import pytest

from trainer.runs.report import html
from trainer.text.printable import (
    LineFormatter,
    PrintableStream,
    guarded,
    in_csv,
    in_lines,
    printable,
)

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
NO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u3164"
HIDDEN = "\x1b\x07\r\x7f\x85\x9b\x00" + BIDI + NO_WIDTH + "\udc80\u2028"
HOSTILE = f"\x1b]0;owned\x07{HIDDEN}"


@pytest.mark.slow
def test_nothing_that_steers_or_hides_is_left() -> None:
    for code in range(sys.maxunicode + 1):
        shown = printable(chr(code))
        assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown)
        assert shown == chr(code) or shown == ascii(chr(code))[1:-1] != ""
    assert not set(printable(HOSTILE)) & set(HIDDEN)


@pytest.mark.parametrize(
    "text", ["", "a b", "naïve café", "犬　猫", "שלום", "🐈", "C:\\photos", "a\xa0b"]
)
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert printable(text) == text
    assert in_lines(f"{text}\n{text}\tx") == f"{text}\n{text}\tx"


def test_a_name_stays_on_one_line() -> None:
    assert printable("a\nb\tc") == r"a\nb\tc"


def test_twice_is_as_once() -> None:
    assert printable(printable(HOSTILE)) == printable(HOSTILE)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert in_csv(text).startswith("'")
    assert "\r" not in in_csv(text)


def test_other_cells_stay() -> None:
    assert in_csv("cat, large") == "cat, large"


@pytest.mark.parametrize("markup", ["{{ x }}", "{{ x | lines }}", "{{ told(x) }}", "{{ x ~ x }}"])
def test_no_html_in_a_page(markup: str) -> None:
    """Whatever a template does with a value; a filter that would pass it by is not there."""
    macro = '{% macro told(words) %}<p title="{{ words }}">{{ words }}</p>{% endmacro %}'
    page = html.environment().from_string(macro + markup).render(x=f'{HOSTILE}<b on="\'">\n')
    assert not set(page) & set(HIDDEN)
    assert "\\x1b]0;owned" in page
    assert "&lt;b on=&#34;&#39;&#34;&gt;" in page
    assert ("\n" in page) == ("lines" in markup)


def test_no_filter_lets_a_value_through() -> None:
    for name in ("safe", "e", "escape", "forceescape", "xmlattr", "urlize", "tojson", "replace"):
        with pytest.raises(jinja2.TemplateAssertionError, match="No filter"):
            html.environment().from_string("{{ x | " + name + " }}")
    for template in html.TEMPLATES.glob("*.html"):
        assert "~" not in template.read_text()  # which joins markup and text unseen


def test_the_log_is_clean_and_has_lines() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "%s\nmore", (HOSTILE,), None)
    assert LineFormatter("%(levelname)s %(message)s").format(record) == (
        f"INFO {printable(HOSTILE)}\nmore"
    )


def test_nothing_goes_through_the_stream() -> None:
    below = io.TextIOWrapper(io.BytesIO(), "utf-8")
    stream = guarded(below)
    assert isinstance(stream, PrintableStream)
    print(HOSTILE, "é", file=stream, flush=True)
    stream.writelines([HOSTILE, "\n"])
    stream.flush()
    said = below.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert said == f"{printable(HOSTILE)} é\n{printable(HOSTILE)}\n"
    assert guarded(stream) is stream


def test_a_stream_that_cannot_say_a_letter_escapes_it() -> None:
    below = io.TextIOWrapper(io.BytesIO(), "ascii")
    stream = guarded(below)
    print("é", file=stream, flush=True)
    assert below.buffer.getvalue() == b"\\xe9\n"  # type: ignore[attr-defined]
