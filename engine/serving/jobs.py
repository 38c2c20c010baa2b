"""Jobs on disk: a SQLite database of their states, beside the folders of their files.

A job that was created survives the end of the process and a loss of power: the database waits for the disk.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..contract.closing import Closing
from .job_files import JobFiles

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    number INTEGER UNIQUE NOT NULL,
    key TEXT UNIQUE,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    options TEXT NOT NULL,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    frames_done INTEGER NOT NULL DEFAULT 0,
    frames_total INTEGER,
    segments_done INTEGER NOT NULL DEFAULT 0,
    segments_total INTEGER,
    error TEXT,
    report TEXT,
    scenes_done INTEGER NOT NULL DEFAULT 0,
    scenes_total INTEGER
);
CREATE TABLE IF NOT EXISTS webhooks (
    id TEXT PRIMARY KEY,
    due REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS expired (
    id TEXT PRIMARY KEY,
    deleted REAL NOT NULL
);
"""
_REMEMBERED_S = 30 * 24 * 3600.0  # for which an identifier is known after its job was deleted for its age
# Of the jobs, that databases of earlier versions lack.
_ADDED = {"scenes_done": "INTEGER NOT NULL DEFAULT 0", "scenes_total": "INTEGER"}
_COLUMNS = (
    "id", "number", "state", "priority", "options", "created", "started", "finished", "frames_done", "frames_total",
    "segments_done", "segments_total", "error", "report", "scenes_done", "scenes_total",
)  # fmt: skip
_JSON = {"options", "error", "report"}


@dataclass(frozen=True)
class Job:
    """A job as it is stored; times are in seconds since the epoch."""

    id: str
    number: int  # in the order of creation
    state: State
    priority: int  # jobs of a higher one come first
    options: dict[str, Any]  # of the request
    created: float
    started: float | None
    finished: float | None
    frames_done: int  # input frames
    frames_total: int | None
    segments_done: int
    segments_total: int | None
    error: dict[str, Any] | None  # code and message
    report: dict[str, Any] | None
    scenes_done: int = 0  # that were learned
    scenes_total: int | None = None  # to learn; None: the network is not adapted, or the video not surveyed

    @property
    def ended(self) -> bool:
        """Return whether the state will not change any more."""
        return self.state in ENDED


class JobStore(JobFiles, Closing):
    """The jobs in a folder, and their files. Every method may be called from any thread."""

    def __init__(self, folder: Path, files: str | None = None) -> None:
        super().__init__(folder, files)
        self._lock = threading.Lock()
        self._database = sqlite3.connect(self.folder / "jobs.sqlite3", check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.executescript(_SCHEMA)
        present = {row[1] for row in self._database.execute("PRAGMA table_info(jobs)")}
        for column, kind in _ADDED.items():
            if column not in present:
                self._database.execute(f"ALTER TABLE jobs ADD COLUMN {column} {kind}")

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def create(self, identifier: str, options: Mapping[str, Any], *, priority: int = 0, key: str | None = None) -> Job:
        """Store a new job in the state "queued"; with the `key` of an earlier job, return that one."""
        with self._lock:
            earlier = self._find("key = ?", (key,)) if key is not None else []
            if earlier:
                return earlier[0]
            self._database.execute(
                "INSERT INTO jobs (id, number, key, state, priority, options, created)"
                " VALUES (?, (SELECT COALESCE(MAX(number), 0) + 1 FROM jobs), ?, 'queued', ?, ?, ?)",
                (identifier, key, priority, json.dumps(dict(options)), time.time()),
            )
            return self._find("id = ?", (identifier,))[0]

    def get(self, identifier: str) -> Job | None:
        """Return a job, or None if there is none."""
        with self._lock:
            return next(iter(self._find("id = ?", (identifier,))), None)

    def with_key(self, key: str) -> Job | None:
        """Return the job that was created with a key, or None if there is none."""
        with self._lock:
            return next(iter(self._find("key = ?", (key,))), None)

    def page(self, state: State | None = None, after: int = 0, limit: int = 100) -> list[Job]:
        """Return jobs with numbers above `after` in the order of creation, of one state or of all."""
        where, values = ("number > ?", [after]) if state is None else ("number > ? AND state = ?", [after, state])
        with self._lock:
            return self._find(f"{where} ORDER BY number LIMIT ?", (*values, limit))

    def position(self, job: Job) -> int | None:
        """Return how many of the jobs that are queued come before a job or are the job itself; None if it is not."""
        if job.state != "queued":
            return None
        with self._lock:
            (count,) = self._database.execute(
                "SELECT COUNT(*) FROM jobs WHERE state = 'queued' AND (priority > ? OR (priority = ? AND number <= ?))",
                (job.priority, job.priority, job.number),
            ).fetchone()
        return int(count)

    def waiting(self) -> list[Job]:
        """Return the jobs that are queued or running, in the order in which they are computed."""
        with self._lock:
            return self._find("state IN ('queued', 'running') ORDER BY priority DESC, number", ())

    def update(self, identifier: str, **fields: Any) -> None:
        """Replace fields of a job."""
        names = ", ".join(f"{name} = ?" for name in fields)
        with self._lock:
            self._database.execute(f"UPDATE jobs SET {names} WHERE id = ?", (*_stored(fields), identifier))

    def end(self, identifier: str, state: State, **fields: Any) -> bool:
        """Set the last state of a job, and return true, unless it has one. Its webhook, if it has one, is due then."""
        names = "".join(f", {name} = ?" for name in fields)
        now = time.time()
        with self._transaction():
            cursor = self._database.execute(
                f"UPDATE jobs SET state = ?, finished = ?{names} WHERE id = ? AND state IN ('queued', 'running')",
                (state, now, *_stored(fields), identifier),
            )
            if not cursor.rowcount:
                return False
            self._database.execute(
                "INSERT INTO webhooks (id, due) SELECT id, ? FROM jobs WHERE id = ?"
                " AND json_extract(options, '$.webhook') NOT NULL",
                (now, identifier),
            )
            return True

    def webhooks_due(self, now: float, limit: int) -> list[tuple[Job, int]]:
        """Return jobs whose webhooks are due, each with the number of the attempt that begins, from 1."""
        with self._transaction():
            due = self._database.execute(
                "UPDATE webhooks SET attempts = attempts + 1 WHERE id IN"
                " (SELECT id FROM webhooks WHERE due <= ? ORDER BY due LIMIT ?) RETURNING id, attempts",
                (now, limit),
            ).fetchall()
            return [(job, attempts) for id_, attempts in due for job in self._find("id = ?", (id_,))]

    def delay_webhook(self, identifier: str, due: float) -> None:
        """Let the webhook of a job be due at a later time."""
        with self._lock:
            self._database.execute("UPDATE webhooks SET due = ? WHERE id = ?", (due, identifier))

    def settle_webhook(self, identifier: str) -> None:
        """Forget the webhook of a job: it was received, or given up."""
        with self._lock:
            self._database.execute("DELETE FROM webhooks WHERE id = ?", (identifier,))

    def delete(self, identifier: str) -> None:
        """Delete a job and its files."""
        with self._transaction():
            self._database.execute("DELETE FROM jobs WHERE id = ?", (identifier,))
            self._database.execute("DELETE FROM webhooks WHERE id = ?", (identifier,))
        self.remove_files(identifier)

    def delete_ended(self, before: float) -> int:
        """Delete the jobs that ended before a time, and return their number. They count as expired for a month."""
        now = time.time()
        with self._transaction():
            old = self._find("finished < ?", (before,))
            self._database.executemany(
                "INSERT OR REPLACE INTO expired (id, deleted) VALUES (?, ?)", [(job.id, now) for job in old]
            )
            self._database.execute("DELETE FROM expired WHERE deleted < ?", (now - _REMEMBERED_S,))
        for job in old:
            self.delete(job.id)
        return len(old)

    def has_expired(self, identifier: str) -> bool:
        """Return whether there was a job that was deleted for its age."""
        with self._lock:
            found = self._database.execute("SELECT 1 FROM expired WHERE id = ?", (identifier,)).fetchone()
        return found is not None

    def counts(self) -> dict[str, int]:
        """Return the number of jobs in every state."""
        with self._lock:
            found = dict(self._database.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state").fetchall())
        return {state: found.get(state, 0) for state in get_args(State)}

    def sweep(self) -> None:
        """Delete the folders of jobs that were never created, and queue those again that were running."""
        with self._lock:
            self._database.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'")
            known = {row[0] for row in self._database.execute("SELECT id FROM jobs")}
        for folder in (self.folder / "jobs").glob("*"):
            if folder.name not in known:
                self.remove_files(folder.name)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Lock the database for a block whose changes are stored all together or not at all."""
        with self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            yield

    def _find(self, where: str, values: tuple[Any, ...]) -> list[Job]:
        rows = self._database.execute(f"SELECT {', '.join(_COLUMNS)} FROM jobs WHERE {where}", values).fetchall()
        found = []
        for row in rows:
            fields = dict(zip(_COLUMNS, row, strict=True))
            fields |= {name: json.loads(fields[name]) for name in _JSON if fields[name] is not None}
            found.append(Job(**fields))
        return found


def _stored(fields: Mapping[str, Any]) -> list[Any]:
    """Return the values of fields as the database stores them."""
    return [json.dumps(v) if k in _JSON and v is not None else v for k, v in fields.items()]
