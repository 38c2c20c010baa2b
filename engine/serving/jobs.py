"""Jobs on disk: a SQLite database of their states, and a folder for the files of each.

A job that was created survives the end of the process and a loss of power: the database waits for the disk.
"""

import json
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from ..contract.atomic import atomic_path
from ..contract.closing import Closing
from ..media.folders import Folder, is_remote, open_folder
from ..pipeline.outline import Outline
from ..pipeline.run_files import parts_beside

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
"""
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


class JobStore(Closing):
    """The jobs in a folder. Every method may be called from any thread.

    Workers on other machines find the files of a job in `files`: a folder that the machines share, or an address such
    as s3://bucket/folder. Without it the workers use those in `folder`.
    """

    def __init__(self, folder: Path, files: str | None = None) -> None:
        self.folder = folder = folder.absolute()
        self._files = files if files is None or is_remote(files) else str(Path(files).absolute())
        folder.mkdir(parents=True, exist_ok=True)
        if self._files is not None:
            open_folder(self._files, folder)  # an address that cannot be opened here is refused at once
            if not is_remote(self._files):
                Path(self._files).mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._database = sqlite3.connect(folder / "jobs.sqlite3", check_same_thread=False, isolation_level=None)
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

    def new_id(self) -> str:
        """Reserve the identifier of a new job, and create its folder."""
        identifier = str(uuid.uuid4())
        self.folder_of(identifier).mkdir(parents=True)
        return identifier

    def folder_of(self, identifier: str) -> Path:
        """Return the folder of a job. Raises ValueError for text that is no identifier in its usual spelling."""
        if str(uuid.UUID(identifier)) != identifier:
            raise ValueError(identifier)
        return self.folder / "jobs" / identifier

    def input_of(self, identifier: str) -> Path:
        """Return the input file of a job."""
        return self.folder_of(identifier) / "input"

    def output_of(self, identifier: str, container: str) -> Path:
        """Return the output file of a job, in a container such as "mp4"."""
        return self.folder_of(identifier) / f"result.{container}"

    def keep_outline(self, identifier: str, outline: Outline) -> None:
        """Keep the outline of a job for its preview, without which a job is computed too."""
        with suppress(OSError), atomic_path(self._outline_of(identifier)) as partial:
            partial.write_text(json.dumps(outline.as_dict()), encoding="utf-8")

    def outline(self, identifier: str) -> Outline | None:
        """Return the outline of a job, or None while its video is not surveyed."""
        try:
            return _read_outline(self._outline_of(identifier))
        except FileNotFoundError:
            return None

    def result_of(self, identifier: str, container: str) -> Path:
        """Return the output file of a job that is done; it is fetched if the workers left it elsewhere.

        Raises OSError if it is not there or cannot be fetched.
        """
        path = self.output_of(identifier, container)
        if (shared := self._shared(identifier)) is not None and not path.exists():
            return shared.fetch(path.name)
        return path

    def has_result(self, identifier: str, container: str) -> bool:
        """Return whether the output file of a job is there. Raises OSError if that cannot be known."""
        path = self.output_of(identifier, container)
        shared = self._shared(identifier)
        return path.exists() or (shared is not None and shared.exists(path.name))

    def parts_of(self, identifier: str, container: str) -> Folder:
        """Return the folder of the finished segments of a job, while it is computed."""
        output = self.for_workers(self.output_of(identifier, container))
        return open_folder(parts_beside(output), self.folder_of(identifier) / "parts")

    def for_workers(self, file: Path) -> str | Path:
        """Return the path or the address at which the workers find a file of a job's folder."""
        return file if self._files is None else f"{self._files}/{file.parent.name}/{file.name}"

    def share(self, identifier: str) -> None:
        """Bring the input of a job to where the workers find it. Raises OSError."""
        if (shared := self._shared(identifier)) is not None:
            shared.create()
            shared.put(self.input_of(identifier), self.input_of(identifier).name)

    def remove_files(self, identifier: str) -> None:
        """Delete the files of a job, here and where the workers have them."""
        shutil.rmtree(self.folder_of(identifier), ignore_errors=True)
        if (shared := self._shared(identifier)) is not None:
            shared.remove()

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
        """Delete the jobs that ended before a time, and return their number."""
        with self._lock:
            old = self._find("finished < ?", (before,))
        for job in old:
            self.delete(job.id)
        return len(old)

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

    def _shared(self, identifier: str) -> Folder | None:
        """Return the folder of a job where the workers find it, if they do not use the one here."""
        folder = self.folder_of(identifier)
        return None if self._files is None else open_folder(f"{self._files}/{identifier}", folder)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Lock the database for a block whose changes are stored all together or not at all."""
        with self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            yield

    def _outline_of(self, identifier: str) -> Path:
        return self.folder_of(identifier) / "outline.json"

    def _find(self, where: str, values: tuple[Any, ...]) -> list[Job]:
        rows = self._database.execute(f"SELECT {', '.join(_COLUMNS)} FROM jobs WHERE {where}", values).fetchall()
        found = []
        for row in rows:
            fields = dict(zip(_COLUMNS, row, strict=True))
            fields |= {name: json.loads(fields[name]) for name in _JSON if fields[name] is not None}
            found.append(Job(**fields))
        return found


@lru_cache(maxsize=4)
def _read_outline(path: Path) -> Outline:
    """Return an outline, which does not change; a preview asks for it again and again."""
    return Outline.from_dict(json.loads(path.read_bytes()))


def _stored(fields: Mapping[str, Any]) -> list[Any]:
    """Return the values of fields as the database stores them."""
    return [json.dumps(v) if k in _JSON and v is not None else v for k, v in fields.items()]
