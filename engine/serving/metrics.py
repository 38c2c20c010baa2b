"""The metrics of a server."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .jobs import Job

_QUEUE_S = (0.1, 1, 10, 60, 300, 1800, 3600, 6 * 3600, 24 * 3600)


class Metrics:
    """The metrics of a server, for Prometheus."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._jobs = Gauge("stvsr_jobs", "Jobs by state", ["state"], registry=self._registry)
        self._frames = Counter("stvsr_frames_total", "Input frames of finished segments", registry=self._registry)
        self._queue = Histogram(
            "stvsr_queue_seconds", "Time that jobs waited", registry=self._registry, buckets=_QUEUE_S
        )
        self._segments = Histogram("stvsr_segment_seconds", "Duration of segments", ["model"], registry=self._registry)

    def start(self, job: Job) -> None:
        """Count a job that begins now."""
        self._queue.observe(max(0.0, time.time() - job.created))

    def segment(self, job: Job, frames: int, seconds: float) -> None:
        """Count a finished segment."""
        self._frames.inc(frames)
        self._segments.labels(job.options["model"]).observe(seconds)

    def text(self, counts: dict[str, int]) -> bytes:
        """Return all metrics in the format of Prometheus."""
        for state, count in counts.items():
            self._jobs.labels(state).set(count)
        return generate_latest(self._registry)
