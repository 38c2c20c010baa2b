"""Options of reading in a client's request."""

from pathlib import Path

import pytest
from stvsr import RequestError, UpscaleRequest
from stvsr.engine.media.options import DEINTERLACE, FIELD_RATES

pytest.importorskip("fastapi", reason="the server needs the serve extra")

from stvsr.engine.serving.requests import JobOptions, make_request, read_options


def test_options_of_reading_reach_the_request() -> None:
    options = {"deinterlace": "bwdif", "field_rate": "single", "on_damage": "repeat", "dedup": "true"}
    request = make_request(read_options(options), Path("clip.mp4"), Path("out.mp4"))
    assert (request.deinterlace, request.field_rate, request.on_damage, request.dedup) == (
        "bwdif",
        "single",
        "repeat",
        True,
    )
    plain, default = make_request(JobOptions(), Path("a"), Path("b")), UpscaleRequest(input=Path("a"), output=Path("b"))
    assert plain.read_options == default.read_options
    assert not plain.dedup


def test_every_value_is_offered_and_others_are_refused() -> None:
    for value in DEINTERLACE:
        assert read_options({"deinterlace": value}).deinterlace == value
    for rate in FIELD_RATES:
        assert read_options({"field_rate": rate}).field_rate == rate
    for name in ("deinterlace", "field_rate", "on_damage", "dedup"):
        with pytest.raises(RequestError, match=f"^{name}: "):
            read_options({name: "wrong"})
