"""One HTML file with markup, style, script and data inline, which loads nothing."""

from __future__ import annotations

import hashlib
import html
import json
from base64 import b64encode
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from ofbnas.files import durable

SCRIPTS = (
    "elements",
    "scales",
    "front",
    "architecture",
    "sweep",
    "objectives",
    "epochs",
    "history",
    "costs",
    "filter",
    "copies",
    "trials",
    "page",
)


def page(contents: Mapping[str, Any], *, live: bool = False) -> str:
    """The page as one text.

    Its content security policy lets a browser run this script, use this style, and load nothing.

    Args:
        contents: What it shows.
        live: Whether it requests new contents from its server; otherwise it requests nothing.
    """
    style = _part("style.css")
    code = script()
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"script-src '{_digest(code)}'",
            f"style-src '{_digest(style)}'",
            "connect-src 'self'" if live else "connect-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    return Template(_part("page.html")).substitute(
        live=" data-live" if live else "",
        policy=html.escape(policy),
        title=html.escape(f"{contents['study']['name']}: architectures found by ofbnas"),
        style=style,
        data=_inline(contents),
        script=code,
    )


def script() -> str:
    """The page's JavaScript: its parts share one scope, which nothing else sees."""
    parts = "\n".join(_part(f"{name}.js") for name in SCRIPTS)
    return "(() => {\n" + parts + "})();\n"


def write_page(contents: Mapping[str, Any], out: Path) -> None:
    """Write the page to a file."""
    durable.write(out, page(contents))


def _inline(value: Any) -> str:
    """JSON that can neither close the element it stands in nor open another."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _digest(text: str) -> str:
    """The hash by which a policy allows an inline script or style."""
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256-" + b64encode(digest).decode()


def _part(name: str) -> str:
    """The text of a file beside this one."""
    return files("ofbnas.study.report").joinpath(name).read_text(encoding="utf-8")
