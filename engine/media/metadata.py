"""Metadata of a source that stay true in an output."""

import re
from collections.abc import Mapping
from fractions import Fraction

_STALE_KEYS = re.compile(
    r"encoder|alpha_mode|DURATION|_STATISTICS.*|BPS|NUMBER_OF_.*|major_brand|minor_version|compatible_brands",
    re.IGNORECASE,
)

# FFmpeg's QuickTime muxer knows only the other ISO 639 code of these languages.
_QUICKTIME_LANGUAGES = {
    "deu": "ger", "fre": "fra", "nld": "dut", "ell": "gre", "zho": "chi", "cze": "ces", "isl": "ice", "rum": "ron",
    "slo": "slk", "sqi": "alb", "hye": "arm", "eus": "baq", "mya": "bur", "kat": "geo", "mkd": "mac", "msa": "may",
    "fas": "per", "bod": "tib", "cym": "wel", "swe": "sve", "nob": "nor", "nno": "nor",
}  # fmt: skip


def lasting_metadata(metadata: Mapping[str, str], format: str) -> dict[str, str]:
    """Return the metadata that stay true after a new encoding, with the language codes of the output format."""
    lasting = {key: value for key, value in metadata.items() if not _STALE_KEYS.match(key)}
    if format == "mov" and lasting.get("language") in _QUICKTIME_LANGUAGES:
        lasting["language"] = _QUICKTIME_LANGUAGES[lasting["language"]]
    return lasting


def readable(text: str) -> str:
    """Return a text of a file's metadata, with what is no UTF-8 replaced: from PyAV 19 on, halves of characters."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def timecode_at_rate(timecode: str, rate: Fraction, new_rate: Fraction) -> str:
    """Return a SMPTE timecode (SMPTE ST 12-1) of the first frame for another rate, in frames per second.

    Its number of the frame within the second changes with the rate. Drop-frame counting exists at multiples of
    30000/1001 alone. Text of another form is returned as it is.
    """
    match = re.fullmatch(r"(\d\d:\d\d:\d\d)([:;.])(\d+)", timecode)
    if match is None:
        return timecode
    time, separator, frame = match.groups()
    if (new_rate / Fraction(30000, 1001)).denominator != 1:
        separator = ":"
    return f"{time}{separator}{int(frame) * round(new_rate) // max(1, round(rate)):02d}"
