"""What a process says of what it does: a line a matter, as text or as JSON, without secrets.

Belongs here: how lines look, and which are said. Does not belong here: what is said, or Dagster's own records of runs.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime

from ionbeam_client.text import visible
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.config.secrets import secrets_of, struck_out
from ionbeam_dagster.errors import ConfigError

FORM, LEVEL = "IONBEAM_LOG", "IONBEAM_LOG_LEVEL"
_FORMS = ("text", "json")
_LEVELS = ("debug", "info", "warning", "error")
_OURS = ("ionbeam_dagster", "ionbeam_client")
_TALKATIVE = ("dagster", "alembic", "httpx")  # httpx names every address, with its query


def as_json() -> bool:
    """Whether logs are to be JSON. Raises ConfigError."""
    return _chosen(FORM, _FORMS, "text") == "json"


def log_to_stderr(config: IonbeamConfig, usual: str = "info") -> None:
    """Log to standard error as the environment says, from the `usual` level on where it says none: IONBEAM_LOG is the
    form (text or json), IONBEAM_LOG_LEVEL the level of what the platform says. Libraries say no more than before.

    Raises ConfigError where the environment says something else.
    """
    level = getattr(logging, _chosen(LEVEL, _LEVELS, usual).upper())
    handler = logging.StreamHandler()
    handler.setFormatter((_Json if as_json() else _Text)(secrets_of(config)))
    logging.basicConfig(level=max(level, logging.INFO), handlers=[handler])
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


def _chosen(variable: str, possible: tuple[str, ...], usual: str) -> str:
    said = os.environ.get(variable, "").lower() or usual
    if said not in possible:
        raise ConfigError(f"{variable}={said!r} is none of {', '.join(possible)}; correct it in the environment")
    return said


class _Text(logging.Formatter):
    """A line a matter; a traceback follows in lines of its own."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self._secrets = secrets

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = visible(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return struck_out(super().format(record), self._secrets)


class _Json(logging.Formatter):
    """An object a line: time (UTC), level, logger, message, process, and error, where there is a traceback."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        super().__init__()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        clean = {
            key: struck_out(value, self._secrets) if isinstance(value, str) else value for key, value in told.items()
        }
        return json.dumps(clean, ensure_ascii=False)
