"""Image files as the frames of a video: a folder, a pattern such as name_%05d.png, or a single image.

Frames that are missing, of another kind or of another size are found here, before any work begins.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ..contract.errors import MediaError
from .image_kinds import is_animated_png

# By suffix, FFmpeg's decoder.
IMAGE_CODECS = {
    ".png": "png", ".jpg": "mjpeg", ".jpeg": "mjpeg", ".tif": "tiff", ".tiff": "tiff", ".webp": "webp", ".bmp": "bmp",
}  # fmt: skip
_KINDS = {"png": "PNG", "mjpeg": "JPEG", "tiff": "TIFF", "webp": "WebP", "bmp": "BMP"}
_NUMBER = re.compile(r"%(0\d+)?d")  # in the name of a pattern
_DIGITS = re.compile(r"([0-9]+)")  # and no other characters that Unicode counts among the digits
_MOST_NAMES = 5  # in a sentence
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.I)  # a path has lost one of two slashes


def absent_file(path: Path) -> MediaError:
    """Return the error about an input that is no file of this machine."""
    if _ADDRESS.match(str(path)):
        return MediaError(
            f"{path} is an address, and files of this machine are read: download it first, or pipe it into '-'."
        )
    return MediaError(f"{path} does not exist: check the path.")


@dataclass(frozen=True)
class ImageFiles:
    """Image files in the order of their frames, and sentences about what is odd among them."""

    files: tuple[Path, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pattern:
    """A path whose name holds one number, written %d, or %05d for at least five digits; %% is a percent sign."""

    folder: Path
    before: str
    digits: int
    after: str

    def path(self, number: int) -> Path:
        """Return the file of a number."""
        return self.folder / f"{self.before}{number:0{self.digits}d}{self.after}"

    def files(self) -> dict[int, Path]:
        """Return the files that exist, by their numbers, ascending. Raises MediaError for two of one number."""
        name = re.compile(rf"{re.escape(self.before)}([0-9]{{{max(1, self.digits)},}}){re.escape(self.after)}")
        found: dict[int, Path] = {}
        for file in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            if match := name.fullmatch(file.name):
                number = int(match[1])
                if number in found:
                    raise _same_number(found[number], file)
                found[number] = file
        return dict(sorted(found.items()))


def read_pattern(path: str | Path) -> Pattern | None:
    """Return the pattern that a path is, or None: a file of that very name is no pattern.

    Raises MediaError for a name with several numbers.
    """
    path = Path(path)
    numbers = _NUMBER.findall(path.name.replace("%%", ""))
    if path.exists() or not numbers:
        return None
    if len(numbers) != 1:
        raise MediaError(f"{path} is not a pattern: write one number, such as %05d, into the name of the images.")
    before, digits, after = re.split(_NUMBER, path.name.replace("%%", "\0"))
    return Pattern(path.parent, before.replace("\0", "%"), int(digits or 0), after.replace("\0", "%"))


def is_images(path: str | Path) -> bool:
    """Return whether a path means image files: a folder, a pattern, or a file with the suffix of an image.

    An animated PNG is a video, also by the name .png.
    """
    path = Path(path)
    return path.is_dir() or (path.suffix.lower() in IMAGE_CODECS and not is_animated_png(path))


def folder_images(folder: Path) -> list[Path]:
    """Return the images in a folder in the natural order of their names; those with a leading dot are left out."""
    files = (file for file in folder.iterdir() if file.suffix.lower() in IMAGE_CODECS and file.name[0] != ".")
    return sorted(files, key=_natural_order)


def find_images(path: str | Path) -> ImageFiles:
    """Return the images that a path means, in order; an image that is missing between them is a warning.

    Raises MediaError if there are none, or if they are of several kinds.
    """
    path = Path(path)
    if path.is_dir():
        files = folder_images(path)
        if not files:
            raise MediaError(
                f"{path} contains no images (PNG, JPEG, TIFF, WebP or BMP): choose another folder, or convert its"
                " images."
            )
        _check_kinds(path, files)
        return ImageFiles(tuple(files), tuple(_oddities(path, files)))
    pattern = read_pattern(path)
    if pattern is None:
        if not path.exists():
            raise absent_file(path)
        return ImageFiles((path,))
    numbered = pattern.files()
    if not numbered:
        raise MediaError(f"No image is named as {path}: check the pattern.")
    return ImageFiles(tuple(numbered.values()), tuple(_missing(pattern, list(numbered))))


def stem_of(path: str | Path) -> str:
    """Return the name by which the images of a path are known: of the folder, or what is constant in their names."""
    path = Path(path)
    if path.is_dir():
        return path.resolve().name
    pattern = read_pattern(path)
    if pattern is None:
        return path.stem
    return pattern.before.rstrip("_-. ") or pattern.folder.resolve().name


def _natural_order(file: Path) -> list[tuple[int, str]]:
    """Return a key that sorts frame9 before frame10."""
    return [(int(part), part) if part.isascii() and part.isdigit() else (0, part.lower()) for part in _parts(file.name)]


def _parts(name: str) -> list[str]:
    return _DIGITS.split(name)  # text and digits in turn


def _check_kinds(folder: Path, files: list[Path]) -> None:
    kinds: dict[str, list[str]] = defaultdict(list)
    for file in files:
        kinds[_KINDS[IMAGE_CODECS[file.suffix.lower()]]].append(file.name)
    if len(kinds) > 1:
        by_number = sorted(kinds.items(), key=lambda item: -len(item[1]))
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in by_number)
        others = [name for _, names in by_number[1:] for name in names]
        raise MediaError(
            f"{folder} contains images of several kinds ({counts}), among them {_named(others)}: move the others away,"
            f" or name the frames by a pattern such as {folder / '%05d.png'}."
        )


def _oddities(folder: Path, files: list[Path]) -> Iterator[str]:
    """Yield sentences about names that no single sequence of numbers explains."""
    shapes: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for file in files:
        shapes[tuple(_parts(file.stem)[::2])].append(file)
    if len(shapes) > 1 and any(len(named) > 1 for named in shapes.values()):
        firsts = [named[0].name for named in shapes.values()]
        yield f"The images in {folder} have several kinds of names ({_named(firsts)}): they are read one after another."
    for named in shapes.values():
        digits = [_parts(file.stem)[1::2] for file in named]
        varying = [index for index, column in enumerate(zip(*digits, strict=True)) if len(set(column)) > 1]
        if len(varying) != 1:
            continue
        (index,) = varying
        by_number: dict[int, Path] = {}
        for file, texts in zip(named, digits, strict=True):
            if int(texts[index]) in by_number:
                raise _same_number(by_number[int(texts[index])], file)
            by_number[int(texts[index])] = file
        first = _parts(named[0].name)
        before, after = "".join(first[: 2 * index + 1]), "".join(first[2 * index + 2 :])
        width = len(first[2 * index + 1])
        yield from _missing(Pattern(folder, before, width, after), sorted(by_number))


def _missing(pattern: Pattern, numbers: list[int]) -> Iterator[str]:
    """Yield a sentence about the images that are missing between those of some numbers, ascending."""
    count = numbers[-1] - numbers[0] + 1 - len(numbers)
    if count:
        gaps = (number for low, high in pairwise(numbers) for number in range(low + 1, high))
        names = [pattern.path(number).name for number, _ in zip(gaps, range(_MOST_NAMES + 1), strict=False)]
        yield (
            f"{_named(names, count)} {'is' if count == 1 else 'are'} missing among the images in {pattern.folder}:"
            " motion jumps there."
        )


def _named(names: Iterable[str], count: int | None = None) -> str:
    """Return some of the names for a sentence."""
    names = list(names)
    count = len(names) if count is None else count
    shown = names[:_MOST_NAMES]
    return ", ".join(shown) + (f" and {count - len(shown)} more" if count > len(shown) else "")


def _same_number(first: Path, second: Path) -> MediaError:
    return MediaError(f"{first} and {second.name} have the same number: rename or remove one of them.")
