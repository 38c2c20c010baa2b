"""The compression of a stream by its packets and quantisers."""

from pathlib import Path

import av
import numpy as np
import pytest
from stvsr.engine.media.stream_coding import measure_coding

from tests.support.media import pan
from tests.support.paths import SAMPLE


def write_h264(path: Path, crf: int) -> Path:
    """Write a video of 12 frames of 128x96 with texture, by x264 at a constant rate factor."""
    random = np.random.default_rng(0)
    texture = random.normal(0, 12, (1, 96, 128))
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": str(crf)})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number, rgb in enumerate(pan(12, (96, 128))):
            picture = np.clip(rgb * 255 + np.roll(texture, 2 * number, 2), 0, 255).astype(np.uint8)
            image = np.ascontiguousarray(picture.transpose(1, 2, 0))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("crf", [18, 28, 38])
def test_quantiser_of_h264_follows_the_rate_factor(crf: int, tmp_path: Path) -> None:
    video = write_h264(tmp_path / "clip.mp4", crf)
    coding = measure_coding(video)
    assert coding is not None
    assert coding.codec == "h264"
    assert coding.quantiser is not None
    assert coding.quantiser - 5 == pytest.approx(crf, abs=5)
    assert coding.bits_per_pixel == pytest.approx(8 * video.stat().st_size / (12 * 96 * 128), rel=0.5)


def test_images_and_pipes_have_no_stream(tmp_path: Path) -> None:
    assert measure_coding(tmp_path / "frame_%05d.png") is None
    assert measure_coding("-") is None


def test_sample_has_bits_and_quantisers() -> None:
    coding = measure_coding(SAMPLE)
    assert coding is not None
    assert 0.01 < coding.bits_per_pixel < 2
    assert coding.quantiser is not None
