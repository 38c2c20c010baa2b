"""The server's log: a line of JSON for each event, with the job that it is about."""

import json
import logging
import sys
from datetime import UTC, datetime

_FIELDS = ("job", "segment", "scene", "frames", "seconds", "reason", "attempts")

log = logging.getLogger("stvsr.serving")


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: its time, level and event, and the fields that it was given."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_to_stderr(level: str) -> None:
    """Write the events of the server to standard error, from a level such as "info"; "debug" has every request."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    requests = "info" if level == "debug" else "warning"
    for name, least in (("stvsr.serving", level), ("uvicorn.error", "warning"), ("uvicorn.access", requests)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(least.upper())
