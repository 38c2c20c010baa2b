"""The output file is complete or absent, and never replaces another one unasked."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import av
import pytest
from stvsr.engine.contract.errors import MediaError
from stvsr.engine.media.writer import VideoWriter

from tests.support.media import make_clip, new_writer, times, write_frames
from tests.support.paths import SAMPLE


class TestRefusals:
    def test_missing_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(MediaError, match=r"folder .* does not exist"):
            new_writer(tmp_path / "none" / "out.mp4")
        assert not list(tmp_path.iterdir())

    def test_existing_file_is_replaced_only_with_overwrite(self, tmp_path: Path) -> None:
        out = tmp_path / "out.mp4"
        out.write_bytes(b"precious")
        with pytest.raises(MediaError, match="already exists"):
            new_writer(out)
        assert out.read_bytes() == b"precious"
        with new_writer(out, overwrite=True) as writer:
            write_frames(writer)
            assert out.read_bytes() == b"precious", "until the new file is complete"
        assert len(times(out)) == 3
        assert list(tmp_path.iterdir()) == [out]

    def test_source_is_refused_as_the_output(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "in.mp4")
        with pytest.raises(MediaError, match="is the input itself"):
            new_writer(clip, source=clip, overwrite=True)

    def test_read_only_folder_is_refused(self, tmp_path: Path) -> None:
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        tmp_path.chmod(0o500)
        with pytest.raises(MediaError, match="cannot be written"):
            new_writer(tmp_path / "out.mp4")

    def test_video_without_frames_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(MediaError, match="No frame"), new_writer(tmp_path / "out.mp4"):
            pass
        assert not list(tmp_path.iterdir())


class TestFailures:
    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_exception_leaves_no_file(self, tmp_path: Path, error: type[BaseException]) -> None:
        def fail() -> None:
            with new_writer(tmp_path / "out.mp4", source=SAMPLE) as writer:
                write_frames(writer, 60)
                assert [file.name[:5] for file in tmp_path.iterdir()] == [".out."]
                raise error

        with pytest.raises(error):
            fail()
        assert not list(tmp_path.iterdir())

    def test_file_created_meanwhile_is_kept(self, tmp_path: Path) -> None:
        out = tmp_path / "out.mp4"

        def interfere() -> None:
            with new_writer(out) as writer:
                write_frames(writer)
                out.write_bytes(b"precious")

        with pytest.raises(MediaError, match="was created by another program meanwhile"):
            interfere()
        assert out.read_bytes() == b"precious"
        assert list(tmp_path.iterdir()) == [out]

    def test_file_system_without_hard_links(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refuse)
        with new_writer(tmp_path / "out.mp4") as writer:
            write_frames(writer)
        assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]

    def test_full_disk_leaves_no_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The muxer's error is simulated: not every machine can mount a small file system."""

        def full(self: VideoWriter, packet: object) -> None:
            raise av.error.OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(VideoWriter, "_write_packet", full)

        def fill_disk() -> None:
            with new_writer(tmp_path / "out.mp4") as writer:
                write_frames(writer)

        with pytest.raises(MediaError, match=r"disk .* is full"):
            fill_disk()
        assert not list(tmp_path.iterdir())

    def test_file_size_limit_leaves_no_file(self, tmp_path: Path) -> None:
        """The system's limit on the size of a file makes the muxer fail for real."""
        script = (
            "import resource, signal, sys\n"
            "from fractions import Fraction\n"
            "from pathlib import Path\n"
            "import numpy as np\n"
            "from stvsr.engine.contract.errors import MediaError\n"
            "from stvsr.engine.media.writer import VideoWriter\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
            "noise = np.random.default_rng(0)\n"
            "try:\n"
            "    with VideoWriter(Path(sys.argv[1]) / 'out.mp4', source=None, size=(256, 192), rate=Fraction(25),\n"
            "                     time_base=Fraction(1, 25), encoder_options={'preset': 'ultrafast'}) as writer:\n"
            "        for n in range(40):\n"
            "            rgb = noise.integers(0, 65536, (3, 192, 256), np.uint16)\n"
            "            writer.write(rgb, Fraction(n, 25), Fraction(1, 25))\n"
            "except MediaError as error:\n"
            "    print(error)\n"
        )
        run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
        assert "cannot be written" in run.stdout, run.stderr
        assert not list(tmp_path.iterdir())
