"""The OpenAPI document as a page for people: every request, and its parameters, in plain HTML without a script.

Belongs here: this page. Does not belong here: the document (documents.py).
"""

from __future__ import annotations

import html
from typing import Any

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:1.5em auto;max-width:60em;padding:0 1em;color:#1f2937}"
    "h2{font-size:1.05em;margin:1.6em 0 .2em}code{background:#f1f5f9;padding:.1em .3em}p{margin:.2em 0}"
    "table{border-collapse:collapse;display:block;overflow-x:auto}td,th{padding:.25em .6em;text-align:left;"
    "vertical-align:top;border-bottom:1px solid #e5e7eb}"
)


def page_of(document: dict[str, Any], base: str) -> str:
    """The page of an OpenAPI document; `base` is the address of the service."""
    info = document["info"]
    title = html.escape(info["title"])
    requests = "".join(
        _request(method.upper(), path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}: requests</title><style>{_STYLE}</style><h1>{title}: requests</h1>"
        f"<p>{html.escape(info.get('description') or '')}</p>"
        f'<p><a href="{html.escape(base)}/">Start</a> · <a href="{html.escape(base)}/openapi?f=json">OpenAPI</a></p>'
        f"{requests}</html>"
    )


def _request(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = "".join(_parameter(one) for one in operation.get("parameters", ()))
    table = f"<table><tr><th>Parameter</th><th>What it is</th><th>Example</th></tr>{rows}</table>" if rows else ""
    summary = html.escape(operation.get("summary", ""))
    return f"<h2><code>{method} {html.escape(path)}</code></h2><p>{summary}</p>{table}"


def _parameter(one: dict[str, Any]) -> str:
    told = [one.get("description", "")]
    told += ["required"] if one.get("required") else []
    if choices := one["schema"].get("enum"):
        told.append(f"one of {', '.join(map(str, choices))}")
    cells = (one["name"], "; ".join(part for part in told if part), str(one.get("example", "")))
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
