"""Jinja2 environment of the pages, which stand alone: no file beside them, no network.

Every value is escaped, and cleaned of what nobody would see, whatever the template does with it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from trainer.text.printable import in_lines, printable

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    return environment().get_template(template).render(values)


@functools.cache
def environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=cleaned,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    # Jinja's own filters are left out: some of them, such as `safe`, pass by `cleaned`.
    made.filters = {"length": len, "lines": lines, "sha256": sha256}
    return made


def cleaned(value: Any) -> Any:
    """A value on one line. Numbers, of which a page of curves has most, stay, and what has been
    through here already, as a macro's result."""
    is_clean = type(value) in (int, float) or hasattr(value, "__html__")
    return value if is_clean else printable(value)


def lines(text: str) -> Markup:
    """A text that has lines."""
    return escape(in_lines(text))


def sha256(script: str) -> str:
    """The digest by which a page's policy lets this script run, and no other."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
