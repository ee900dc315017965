"""Plain values to settings, and what pydantic refuses as sentences: the key, the reason, and what would be right."""

from __future__ import annotations

from datetime import date
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

_TO_YAML = {bool: "true or false", int: "a number", float: "a number", date: "a date"}
Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], block: Any, key: str) -> tuple[Model | None, list[str]]:
    """The settings that `block` is, or a sentence for each fault, which names its place below `key`."""
    try:
        return model.model_validate(block), []
    except ValidationError as error:
        return None, [_fault(found, key, model) for found in error.errors()]


def _fault(found: Any, key: str, model: type[BaseModel]) -> str:
    place = ".".join([key, *map(str, found["loc"])]).strip(".")
    if found["type"] == "extra_forbidden":
        allowed = _fields_at(model, found["loc"][:-1])
        near = get_close_matches(str(found["loc"][-1]), allowed, 1)
        meant = f"; is {near[0]} meant?" if near else ""
        return f"{place}: this key is not known{meant}" + (f"; known are {', '.join(allowed)}" if allowed else "")
    if found["type"] in ("time_delta_parsing", "time_delta_type"):
        return f"{place}: {found['input']!r} is not a duration; right would be, for example, PT5M, PT1H or P1D"
    if found["type"] in ("tuple_type", "list_type"):
        if not isinstance(found["input"], str):  # in what it holds may be a secret
            return f"{place}: should be a list; begin each of its entries with '- '"
        return f"{place}: {found['input']!r} is not a list; right would be, for example, [{found['input']}]"
    if found["type"].startswith(("datetime_", "date_")) and isinstance(found["input"], str):
        return (
            f"{place}: {found['input']!r} is not a time; right would be, for example, 2026-06-21 or 2026-06-21T06:00Z"
        )
    if found["type"] == "string_type" and isinstance(found["input"], int | float | date):
        kind = _TO_YAML[next(kind for kind in _TO_YAML if isinstance(found["input"], kind))]  # it may be a secret
        return f"{place}: is {kind} to YAML, where a text belongs; write it in quotes"
    message = str(found["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}"


def _fields_at(model: Any, place: tuple[str | int, ...]) -> list[str]:
    for step in place:
        if isinstance(step, int):
            continue
        field = getattr(model, "model_fields", {}).get(step)
        if field is None:
            return []
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    return sorted(getattr(model, "model_fields", {}))
