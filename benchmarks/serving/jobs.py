"""Jobs: clients that send one video after another, what the server adds to a bare run, and what survives its end."""

import argparse
import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import av
import httpx2
from stvsr import Client, ServerError

from ..media import make_clip
from ..record import record
from .processes import usage, usage_of_tree, workers
from .server import Server, percentiles

CLIENTS = (1, 8)
SIZE, FRAMES = (160, 90), 60  # of the clip: (w, h) in pixels
_GET_S = 0.02  # between two requests of the reader


def jobs(arguments: argparse.Namespace, command: str) -> None:
    """Record the speed of clients at once, processor time beside that of a bare run, and times of small requests."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = make_clip(folder / "clip.mp4", *SIZE, FRAMES)
        bare_s = min(_bare_cpu_s(clip, folder / "bare.mp4", arguments.threads) for _ in range(arguments.runs))
        results = []
        with _server(folder, arguments) as server:
            _upscale_all(server.url, clip, folder, 1)  # opens the model
            for clients in CLIENTS:
                before, began = usage_of_tree(server.process), time.perf_counter()
                gets = _while_reading(
                    server.url, partial(_upscale_all, server.url, clip, folder, clients, arguments.runs)
                )
                seconds = time.perf_counter() - began
                count = clients * arguments.runs
                cpu_s = (usage_of_tree(server.process).cpu_s - before.cpu_s) / count
                results.append(
                    {
                        "clients": clients,
                        "jobs": count,
                        "fps": round(2 * FRAMES * count / seconds, 2),
                        "cpu_s_of_a_job": round(cpu_s, 2),
                        "cpu_over_bare": round(cpu_s / bare_s, 3),
                        "get_ms": percentiles(gets),
                        "server_mb": round(usage(server.process).memory_bytes / 1e6, 1),
                        "server_resident_mb": round(usage(server.process).resident_bytes / 1e6, 1),
                    }
                )
            preview = [_first_preview(server.url, clip) for _ in range(arguments.runs)]
    record(
        "serving",
        arguments.out,
        command,
        part="jobs",
        threads=arguments.threads,
        clip=[*SIZE, FRAMES],
        bare_cpu_s=round(bare_s, 2),
        results=results,
        first_preview_share=[round(share, 3) for share in preview],
    )


def kills(arguments: argparse.Namespace, command: str) -> None:
    """Record whether jobs survive the end of a worker and of the server, with the pictures of an undisturbed run."""
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = make_clip(folder / "clip.mp4", *SIZE, FRAMES)
        with _server(folder, arguments) as server:
            (expected,) = _upscale_all(server.url, clip, folder, 1)
            with ThreadPoolExecutor(1) as pool:
                running = pool.submit(_upscale_all, server.url, clip, folder, 8)
                time.sleep(rng.uniform(1, 5))
                killed = _kill(max(workers(server.process), key=lambda worker: usage(worker).cpu_s, default=None))
                pictures = running.result()
            with ThreadPoolExecutor(1) as pool:
                running = pool.submit(_upscale_all, server.url, clip, folder, 3)
                time.sleep(rng.uniform(2, 6))
                with Client(server.url) as client:
                    done_before = sum(job.frames_done for job in client.jobs())
                restart_s = server.restart()
                with Client(server.url) as client:
                    done_after = sum(job.frames_done for job in client.jobs())
                pictures_after = running.result()
    record(
        "serving",
        arguments.out,
        command,
        part="kills",
        workers_killed=killed,
        equal_of_eight=pictures.count(expected),
        equal_of_three=pictures_after.count(expected),
        restart_s=round(restart_s, 2),
        frames_done_before_and_after=[done_before, done_after],
    )


def resume(arguments: argparse.Namespace, command: str) -> None:
    """Record how many runs that are killed again and again end with the pictures and about the size of one run."""
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = make_clip(folder / "clip.mp4", *SIZE, 4 * FRAMES)
        began = time.perf_counter()
        _bare_cpu_s(clip, folder / "whole.mp4", arguments.threads)
        seconds = time.perf_counter() - began
        _bare_cpu_s(clip, folder / "parts.mp4", arguments.threads, "--resume")
        expected, equal, killed = pictures_of(folder / "parts.mp4"), 0, 0
        for number in range(arguments.rounds):
            output = folder / f"{number}.mp4"
            words = _bare_command(clip, output, arguments.threads, "--resume")
            while not output.exists():
                process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(rng.uniform(0.5, 1.2 * seconds))
                killed += process.poll() is None
                process.kill()
                process.wait()
            equal += pictures_of(output) == expected
            output.unlink()
        sizes = [(folder / f"{name}.mp4").stat().st_size for name in ("whole", "parts")]
    record(
        "serving",
        arguments.out,
        command,
        part="resume",
        seed=arguments.seed,
        rounds=arguments.rounds,
        kills=killed,
        equal=equal,
        size_over_one_run=round(sizes[1] / sizes[0], 4),
    )


def soak(arguments: argparse.Namespace, command: str) -> None:
    """Record jobs, memory and descriptors of a server whose workers are killed at random, over a long time."""
    rng, ended = random.Random(arguments.seed), threading.Event()
    counts, killed, samples = [0] * 4, 0, []
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = make_clip(folder / "clip.mp4", *SIZE, FRAMES // 2)
        with _server(folder, arguments) as server:
            (expected,) = _upscale_all(server.url, clip, folder, 1)

            def run(number: int) -> int:
                wrong = 0
                while not ended.is_set():
                    try:
                        (pictures,) = _upscale_all(server.url, clip, folder / str(number), 1)
                    except ServerError as error:
                        failures.append(str(error))
                        continue
                    wrong += pictures != expected
                    counts[number] += 1
                return wrong

            with ThreadPoolExecutor(len(counts)) as pool:
                running = [pool.submit(run, number) for number in range(len(counts))]
                began = time.perf_counter()
                while (elapsed := time.perf_counter() - began) < arguments.soak_seconds:
                    time.sleep(rng.uniform(0.5, 1) * arguments.kill_seconds)
                    samples.append((elapsed, usage(server.process), usage_of_tree(server.process)))
                    killed += _kill(rng.choice(workers(server.process) or [None]))
                ended.set()
                wrong = sum(result.result() for result in running)
    steady = samples[len(samples) // 10 :]
    record(
        "serving",
        arguments.out,
        command,
        part="soak",
        seed=arguments.seed,
        seconds=round(elapsed),
        clients=len(counts),
        jobs_done=sum(counts),
        jobs_wrong=wrong,
        jobs_failed=failures,
        workers_killed=killed,
        server_mib_an_hour=round(slope([(at, own.memory_bytes) for at, own, _ in steady]) * 3600 / 2**20, 3),
        server_mb=[round(own.memory_bytes / 1e6, 1) for _, own, _ in (steady[0], steady[-1])],
        all_mb=[round(every.memory_bytes / 1e6, 1) for _, _, every in (steady[0], steady[-1])],
        server_descriptors=[own.descriptors for _, own, _ in (steady[0], steady[-1])],
        server_threads=[own.threads for _, own, _ in (steady[0], steady[-1])],
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the line through points (x, y) by least squares; 0 for fewer than two."""
    if len(points) < 2:
        return 0.0
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def pictures_of(video: Path) -> str:
    """Return the digest of all frames of a video and of their timestamps."""
    digest = hashlib.sha256()
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            digest.update(f"{frame.pts}".encode())
            digest.update(frame.to_ndarray().tobytes())
    return digest.hexdigest()


def _server(folder: Path, arguments: argparse.Namespace) -> Server:
    return Server(folder / "store", "--device", "cpu", "--threads", str(arguments.threads))


def _upscale_all(url: str, clip: Path, folder: Path, clients: int, runs: int = 1) -> list[str]:
    """Let clients send a video at once, `runs` times each, and return the digests of the results' pictures."""
    folder.mkdir(exist_ok=True)

    def run(number: int) -> list[str]:
        digests = []
        with Client(url) as client:
            for _ in range(runs):
                output = folder / f"{number}.mp4"
                client.upscale(clip, output, overwrite=True, scale=4, time_factor=2)
                digests.append(pictures_of(output))
        return digests

    with ThreadPoolExecutor(clients) as pool:
        return [digest for digests in pool.map(run, range(clients)) for digest in digests]


def _while_reading(url: str, call: Callable[[], Any]) -> list[float]:
    """Return the milliseconds of small requests that are sent while a function runs."""
    times: list[float] = []
    ended = threading.Event()

    def read() -> None:
        with httpx2.Client(base_url=url, timeout=60) as client:
            while not ended.wait(_GET_S):
                (job, *_) = client.get("/v1/jobs", params={"limit": 1}).json()["jobs"] or [None]
                began = time.perf_counter()
                client.get("/v1/jobs" if job is None else f"/v1/jobs/{job['id']}")
                times.append(1e3 * (time.perf_counter() - began))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        call()
    finally:
        ended.set()
        reader.join()
    return times


def _first_preview(url: str, clip: Path) -> float:
    """Return the share of a job's time after which its preview has a segment."""
    with Client(url) as client, httpx2.Client(base_url=url, timeout=60) as http:
        job = client.create(clip, scale=4, time_factor=2)
        began, first_s = time.perf_counter(), 0.0
        while not client.job(job.id).ended:
            if not first_s and "#EXTINF" in http.get(f"/v1/jobs/{job.id}/preview.m3u8").text:
                first_s = time.perf_counter() - began
            time.sleep(0.05)
        seconds = time.perf_counter() - began
        client.delete(job.id)
    return (first_s or seconds) / seconds


def _kill(process: int | None) -> int:
    """Kill a process, and return how many were killed."""
    if process is None:
        return 0
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    return 1


def _bare_command(clip: Path, output: Path, threads: int, *options: str) -> list[str]:
    words = [sys.executable, "-m", "stvsr", "upscale", clip, "-o", output, "--device", "cpu", "--threads", threads]
    return [*map(str, words), *options]


def _bare_cpu_s(clip: Path, output: Path, threads: int, *options: str) -> float:
    """Return the processor seconds of `stvsr upscale` in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [*_bare_command(clip, output, threads, *options), "--overwrite"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
