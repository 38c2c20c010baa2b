"""Cases of hostile, damaged and unfit checkpoints."""

import fcntl
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.torture.case import GIB, Case, Expectation, Make, Room

_MADE = ("list", "strangers", "missing", "unexpected", "shapes", "huge-view", "config-list", "config-unknown")
_MADE_TOO = ("config-type", "config-huge", "cut", "flip1", "flip2", "flip3", "int-names", "sparse", "complex", "nan")
_ANY = ("flip1", "flip2", "flip3")


class _Evil:
    """An object that runs a command when it is unpickled."""

    def __init__(self, room: Room) -> None:
        self.file = room / "pwned"

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.file}",)


def write_checkpoints(folder: Path) -> None:
    """Write checkpoints of edvr-s that are wrong, each in a way; needs PyTorch."""
    import torch
    from safetensors.torch import save_file
    from stvsr.training.networks.registry import find_network

    folder.mkdir(parents=True, exist_ok=True)
    entry = find_network("edvr-s")
    torch.manual_seed(0)
    state = entry.build(entry.config).state_dict()
    config = dict(vars(entry.config))
    first = next(iter(state))
    nan = {name: torch.full_like(value, torch.nan) for name, value in state.items()}
    contents: dict[str, Any] = {
        "list": [1, 2, 3],
        "strangers": {**state, "epoch": 7},
        "missing": dict(list(state.items())[1:]),
        "unexpected": {**state, "evil": torch.zeros(1)},
        "shapes": {**state, first: torch.zeros(1)},
        "huge-view": {**state, first: torch.zeros(1).expand(2**40)},
        "config-list": {"state_dict": state, "config": [1, 2]},
        "config-unknown": {"state_dict": state, "config": {"evil": 1}},
        "config-type": {"state_dict": state, "config": {**config, "num_feat": "x"}},
        "config-huge": {"state_dict": state, "config": {**config, "num_feat": 200000}},
        "int-names": {7: torch.zeros(1), None: torch.zeros(1)},
        "sparse": {**state, first: state[first].to_sparse()},
        "complex": {**state, first: state[first].to(torch.complex64)},
        "nan": nan,
        "extra-record": {"state_dict": state, "config": config, "note": torch.zeros(3), "when": {1, 2}},
    }
    for name, content in contents.items():
        torch.save(content, folder / f"{name}.pt")
    save_file(dict(list(state.items())[1:]), folder / "unfit.safetensors")
    save_file(state, folder / "fit.safetensors")
    whole = (folder / "missing.pt").read_bytes()
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 2])
    for seed in (1, 2, 3):
        rng = random.Random(seed)
        with (
            zipfile.ZipFile(folder / "unexpected.pt") as source,
            zipfile.ZipFile(folder / f"flip{seed}.pt", "w") as out,
        ):
            for item in source.infolist():
                data = bytearray(source.read(item))
                if item.filename.endswith("data.pkl"):
                    for _ in range(6):
                        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                out.writestr(item.filename, bytes(data))
    (folder / "done").touch()


def _shared_checkpoint(name: str) -> Make:
    """Return a function that writes the checkpoints once, in a process that ends: PyTorch stays out of this one."""

    def make(room: Room) -> None:
        folder = room.shared / "checkpoints"
        with (room.shared / "checkpoints.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several cases are made at once
            if not (folder / "done").exists():
                code = f"from tests.torture import checkpoint_cases as c; c.write_checkpoints(c.Path({str(folder)!r}))"
                subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
        (room / "in/x.pt").symlink_to(folder / name)

    return make


def _zipped(body: Callable[[Room], bytes], method: int = zipfile.ZIP_STORED) -> Make:
    def make(room: Room) -> None:
        with zipfile.ZipFile(room / "in/x.pt", "w", method) as archive:
            archive.writestr("archive/data.pkl", body(room))
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/byteorder", "little")

    return make


def _written(body: Callable[[Room], bytes]) -> Make:
    return lambda room: (room / "in/x.pt").write_bytes(body(room))


def _safetensors(dtype: str, shape: list[int], offsets: list[int], length: int | None = None) -> Make:
    header = json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()
    return _written(lambda room: struct.pack("<Q", len(header) if length is None else length) + header + bytes(4))


def checkpoint_cases() -> Iterator[Case]:
    """Yield the cases."""

    def case(name: str, make: Make | None = None, expect: Expectation = "refuse", **more: Any) -> Case:
        args = ["export", "edvr-s", "--weights", "{in}/x.pt", "-o", "{out}/b"]
        make = make or _shared_checkpoint(f"{name}.pt")
        return Case(f"checkpoint.{name}", args, expect, make=make, **{"wall_s": 240, "cpu_s": 90, **more})

    yield case("pickle", _written(lambda room: pickle.dumps(_Evil(room), 2)))
    yield case("pickle-proto5", _written(lambda room: pickle.dumps({"state_dict": _Evil(room)}, 5)))
    yield case("zip-pickle", _zipped(lambda room: pickle.dumps(_Evil(room), 2)))
    bomb = _zipped(lambda room: bytes(1 << 30), zipfile.ZIP_DEFLATED)
    yield case("zip-bomb", bomb, max_mb=1500, limits={"AS": 12 * GIB})
    yield case("torchscript", _zipped(lambda room: b"\x80\x02c__torch__\nEvil\n."))
    yield case("empty", lambda room: (room / "in/x.pt").touch())
    yield case("text", _written(lambda room: b"hello\n" * 40))
    yield case("folder", lambda room: (room / "in/x.pt").mkdir())
    yield case("fifo", lambda room: os.mkfifo(room / "in/x.pt"), wall_s=60)
    yield case("endless", lambda room: (room / "in/x.pt").symlink_to("/dev/zero"), max_mb=1500)
    yield case("tar", lambda room: tarfile.open(room / "in/x.pt", "w").close())
    yield case("safetensors", _safetensors("F32", [1], [0, 4]))
    yield case("safetensors-negative", _safetensors("F32", [-1], [0, 4]))
    yield case("safetensors-beyond", _safetensors("F32", [2**40], [0, 2**42]))
    yield case("safetensors-long", _safetensors("F32", [1], [0, 4], 2**62))
    yield case("safetensors-unfit", _shared_checkpoint("unfit.safetensors"))
    yield case("safetensors-fit", _shared_checkpoint("fit.safetensors"), "ok")
    limited: dict[str, Any] = {"limits": {"AS": 12 * GIB}, "max_mb": 2500}
    for name in (*_MADE, *_MADE_TOO):
        more = limited if name in ("config-huge", "huge-view") else {}
        yield case(name, expect="any" if name in _ANY else "refuse", **more)
    yield case("extra-record", expect="any")
    untrained = ["export", "edvr-s", "--untrained", "-o", "{out}/b"]
    for name, value in (("huge", "1000000"), ("bad", "-4"), ("text", "x")):
        args = [*untrained, "-c", f"num_feat={value}"]
        yield Case(f"checkpoint.config-{name}-option", args, "refuse", wall_s=240, cpu_s=60, **limited)
    scores = [*untrained, "--scores", "{in}/s.json"]
    write: Make = lambda room: (room / "in/s.json").write_text("7")  # noqa: E731
    yield Case("checkpoint.scores-text", scores, "refuse", wall_s=240, cpu_s=60, make=write)
