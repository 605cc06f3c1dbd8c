"""One HTML file of the page's parts: markup, style, script and data inline, and nothing from elsewhere."""

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

SCRIPTS = ("elements", "scales", "front", "architecture", "sweep", "history", "costs", "trials", "page")


def page(contents: Mapping[str, Any], *, live: bool = False) -> str:
    """The page as one text.

    Its policy lets a browser run this script and use this style only, and load nothing.

    Args:
        contents: What it shows.
        live: Whether it asks its server for new contents; otherwise it asks nobody for anything.
    """
    style = _part("style.css")
    script = "(() => {\n" + "\n".join(_part(f"{name}.js") for name in SCRIPTS) + "})();"
    asked = "'self'" if live else "'none'"
    policy = (
        f"default-src 'none'; img-src data:; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        f"connect-src {asked}; base-uri 'none'; form-action 'none'"
    )
    return Template(_part("page.html")).substitute(
        live=" data-live" if live else "",
        policy=html.escape(policy),
        title=html.escape(f"{contents['study']['name']}: architectures found by ofbnas"),
        style=style,
        data=_inline(contents),
        script=script,
    )


def write_page(contents: Mapping[str, Any], out: Path) -> None:
    """Write the page to a file."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(contents), encoding="utf-8")


def _inline(value: Any) -> str:
    """JSON that can neither end the element it stands in nor begin another."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _digest(text: str) -> str:
    """The name by which a policy allows an inline script or style."""
    return "sha256-" + b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _part(name: str) -> str:
    """A file that lies beside this one."""
    return files("ofbnas.report").joinpath(name).read_text(encoding="utf-8")
