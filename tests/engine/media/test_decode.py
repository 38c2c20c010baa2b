"""Damaged, truncated and foreign files are refused, with the time of the damage."""

from pathlib import Path

import av
import numpy as np
import pytest
from stvsr.engine.contract.errors import MediaError
from stvsr.engine.media.reader import open_reader

from tests.support.media import remux, times, truncate
from tests.support.paths import SAMPLE


class TestUnreadableFiles:
    def test_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(MediaError, match="does not exist"):
            open_reader(tmp_path / "none.mp4")

    @pytest.mark.parametrize("address", ["http://127.0.0.1:9/x.mp4", "rtsp://camera/1"])
    def test_an_address_is_called_one(self, address: str) -> None:
        with pytest.raises(MediaError, match="is an address, and files of this machine are read"):
            open_reader(address)

    def test_empty_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "empty.mp4").touch()
        with pytest.raises(MediaError, match="is empty"):
            open_reader(tmp_path / "empty.mp4")

    def test_text_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "notes.mp4").write_text("These are notes, and no video at all.\n" * 20)
        with pytest.raises(MediaError, match="not a readable video"):
            open_reader(tmp_path / "notes.mp4")

    def test_audio_file_is_refused(self, tmp_path: Path) -> None:
        clip = tmp_path / "audio.m4a"
        with av.open(str(SAMPLE)) as sample, av.open(str(clip), "w") as output:
            stream = output.add_stream_from_template(sample.streams.audio[0], opaque=True)
            for packet in sample.demux(sample.streams.audio[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    output.mux(packet)
        with pytest.raises(MediaError, match="no video stream"):
            open_reader(clip)

    def test_truncated_index_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(MediaError, match="cut short or damaged"):
            open_reader(truncate(SAMPLE, tmp_path / "cut.mp4", 0.6))

    def test_file_without_a_decodable_frame_is_refused(self, tmp_path: Path) -> None:
        data = bytearray(remux(SAMPLE, tmp_path / "front.mp4", movflags="+faststart").read_bytes())
        start = data.index(b"mdat") + 4
        data[start:] = b"\xff" * (len(data) - start)
        (tmp_path / "void.mp4").write_bytes(data)
        with pytest.raises(MediaError, match="can be decoded"):
            open_reader(tmp_path / "void.mp4")


class TestDamage:
    @pytest.mark.parametrize("share", [0.6, 0.9])
    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("front.mp4", {"movflags": "+faststart"}),
            ("fragments.mp4", {"movflags": "frag_keyframe+empty_moov"}),
            ("clip.mkv", {}),
        ],
    )
    def test_truncated_frames_are_located(
        self, tmp_path: Path, name: str, options: dict[str, str], share: float
    ) -> None:
        whole = remux(SAMPLE, tmp_path / name, **options)
        assert len(times(whole)) == 60
        with pytest.raises(MediaError, match=r"(damaged at|ends at) [01]\.\d{3} s"):
            times(truncate(whole, tmp_path / f"cut_{name}", share))

    def test_one_missing_frame_of_matroska_is_located(self, tmp_path: Path) -> None:
        whole = remux(SAMPLE, tmp_path / "clip.mkv")
        with pytest.raises(MediaError, match=r"damaged at 1\.9\d\d s"):
            times(truncate(whole, tmp_path / "cut.mkv", 0.97))

    def test_overwritten_bytes_are_located(self, tmp_path: Path) -> None:
        broken = bytearray(remux(SAMPLE, tmp_path / "front.mp4", movflags="+faststart").read_bytes())
        middle = len(broken) // 2
        broken[middle : middle + 4000] = bytes(np.random.default_rng(2).integers(0, 256, 4000, np.uint8))
        (tmp_path / "broken.mp4").write_bytes(broken)
        with pytest.raises(MediaError, match=r"damaged at [01]\.\d{3} s"):
            times(tmp_path / "broken.mp4")
