"""Seeded changes of JSON values and of bytes, for parsers of files of others."""

import copy
import json
import random
from typing import Any

_NUMBERS = (0, 1, -1, 2, 3, 7, 64, 65, 1024, 4096, 4097, 10**9, 2**31, 2**62, 2**63, -(2**63), 10**30, 0.0, -0.0, 0.5)
_FLOATS = (1e-7, 1e6, 1.5e6, 1e308, 5e-324, -1e300)
_TEXTS = (
    "",
    "a",
    "..",
    "x.onnx",
    "fp16",
    "pair",
    "sliding",
    "fixed",
    "sm89",
    "é",
    "a\nb",
    "\u0000",
    "x" * 300,
    "0" * 64,
)
# What the parsers of JSON trip over.
_INSERTED = (b"\0", b"[" * 300, b"9" * 400, b"1e999", b"\xff", b'"', b"NaN", b"{")
_OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [0], {"a": 1}, ["a", 1, None])


def random_value(rng: random.Random) -> Any:
    """Return a value that a careless or hostile author would write."""
    return copy.deepcopy(rng.choice([*_NUMBERS, *_FLOATS, *_TEXTS, *_OTHERS]))


def mutate_json(value: Any, rng: random.Random) -> Any:
    """Return a copy of a JSON value with one to three spots changed, removed, added, exchanged or repeated."""
    changed = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        spots = list(_spots(changed))
        holder, key = rng.choice(spots)
        other, other_key = rng.choice(spots)
        match rng.randrange(6):
            case 0 | 1:
                holder[key] = random_value(rng)
            case 2:
                del holder[key]
            case 3 if isinstance(holder, dict):
                holder[rng.choice(["evil", "", "kind", "frames", "factors", "coarse"])] = random_value(rng)
            case 4:
                holder[key] = copy.deepcopy(other[other_key])
            case _ if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
    return changed


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Return bytes with a few of them flipped, removed, repeated or cut off."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        where = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0 | 1 if where < len(changed):
                changed[where] ^= 1 << rng.randrange(8)
            case 2:
                del changed[where : where + rng.randint(1, 20)]
            case 3:
                changed[where:where] = changed[where : where + rng.randint(1, 40)]
            case _:
                changed[where:where] = rng.choice(_INSERTED)
    return bytes(changed)


def mutations_of(document: Any, seed: int, count: int) -> list[bytes]:
    """Return changed JSON texts of a document, on one line each."""
    rng = random.Random(seed)
    texts = []
    for number in range(count):
        text = json.dumps(mutate_json(document, rng)).encode()
        texts.append((mutate_bytes(text, rng) if number % 3 == 2 else text).replace(b"\n", b" "))
    return texts


def _spots(value: Any) -> Any:
    """Yield the holder and the key of every value inside a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _spots(inner)
