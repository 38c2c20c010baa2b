"""Write frames as image files: numbered ones, or a single one."""

import os
import shutil
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.packet import Packet

from ..contract.errors import MediaError
from ..contract.leftovers import Unfinished, remove_leftovers
from ..contract.picture import Picture
from .damage import Repair
from .destination import Destination, read_destination
from .encoder import choose_encoding, within_quota
from .orientation import turn_upright, upright_info, upright_size
from .output_file import OutputFile
from .partfile import system_errors
from .pixel_format import has_alpha, is_rgb
from .probe import VideoInfo
from .tags import FULL_RANGE, LIMITED_RANGE, RGB, SMPTE170M, UNSPECIFIED, Coding, ColorTags
from .thread_priority import keep_priority
from .video_stream import encoder_frame, pixel_aspect

_FIRST_NUMBER = 1
# Transfers and primaries of ordinary video, which programs show as those of untagged images.
_ORDINARY_TRANSFERS = {1, UNSPECIFIED, 6, 14, 15}
_ORDINARY_PRIMARIES = {1, UNSPECIFIED, 5, 6}


class PartFolder:
    """Unfinished image files in a hidden folder, which take their names together; end it with `publish` or `discard`.

    Raises MediaError if the folder of the images is missing, or if one of them exists and `overwrite` is false. A
    folder that the destination alone names is created.
    """

    def __init__(self, destination: Destination, *, creates_folder: bool, overwrite: bool) -> None:
        self._destination, self._overwrite = destination, overwrite
        self._folder = destination.path.parent
        self.files: list[Path] = []  # finished images, in order
        if not self._folder.is_dir() and not (creates_folder and self._folder.absolute().parent.is_dir()):
            missing = self._folder.absolute().parent if creates_folder else self._folder
            raise MediaError(f"The folder {missing} does not exist: create it first.")
        if not overwrite and (existing := destination.existing()) is not None:
            raise MediaError(f"{existing} already exists: choose another output, or allow overwriting.")
        home = self._folder if self._folder.is_dir() else self._folder.absolute().parent
        remove_leftovers(home)
        with self.media_errors():
            self._unfinished = Unfinished(self._folder, home, is_folder=True)
        self._part = self._unfinished.path

    def add(self, data: bytes) -> None:
        """Store the next image."""
        if self._destination.kind == "image":
            if self.files:
                raise MediaError(
                    f"{self._destination.path} is one image, and the video has more frames: name the images by a"
                    f" pattern, such as {self._destination.path.stem}_%05d{self._destination.suffix}."
                )
            name = self._destination.path.name
        else:
            name = self._destination.pattern.path(_FIRST_NUMBER + len(self.files)).name
        file = self._part / name
        file.write_bytes(data)
        self.files.append(file)

    def publish(self) -> None:
        """Give the finished images their names."""
        with self.media_errors():
            self._publish_all()
        self._unfinished.release()

    def discard(self) -> None:
        """Delete the unfinished images."""
        shutil.rmtree(self._part, ignore_errors=True)
        self._unfinished.release()

    def media_errors(self) -> AbstractContextManager[None]:
        """Turn errors of the system and of FFmpeg into MediaError."""
        return system_errors(self._destination.path)

    def _publish_all(self) -> None:
        if not self._folder.exists():
            self._part.rename(self._folder)
            return
        stale = self._destination.pattern.files() if self._destination.kind == "images" else {}
        for file in self.files:
            self._publish(file)
        for number, old in stale.items():
            if self._overwrite and not _FIRST_NUMBER <= number < _FIRST_NUMBER + len(self.files):
                old.unlink()
        self._part.rmdir()

    def _publish(self, file: Path) -> None:
        target = self._folder / file.name
        if not self._overwrite and target.exists():
            raise MediaError(f"{target} was created by another program meanwhile: choose another output.")
        os.replace(file, target)


class ImageWriter(OutputFile):
    """Writes frames as image files: a numbered pattern such as out_%05d.png, a folder, or a single image.

    The depth and alpha of the source are kept where the kind of image stores them; frames are turned upright, and other
    streams are left out. The images take their names together, when all of them are complete. Raises MediaError if they
    cannot be written, if one exists and `overwrite` is false, or if the encoder does not support a choice.
    """

    picture_format = None  # images take RGB alone

    def __init__(
        self,
        path: str | Path,
        *,
        source: VideoInfo | None,
        size: tuple[int, int],  # (width, height)
        codec: str | None = None,
        crf: int | None = None,
        encoder_options: dict[str, str] | None = None,
        pix_fmt: str | None = None,
        overwrite: bool = False,
    ) -> None:
        destination = read_destination(path)
        self._encoding = choose_encoding(
            destination.suffix,
            upright_size(source, size),
            source,
            codec=codec,
            crf=crf,
            pix_fmt=pix_fmt,
            options=encoder_options,
        )
        self.path = destination.path
        self.codec, self.pix_fmt, self.coded_size = self._encoding.codec, self._encoding.pix_fmt, self._encoding.size
        self.has_alpha = has_alpha(self.pix_fmt)  # true if `write` takes alpha
        self.warnings = list(self._encoding.notes)
        self.repairs: list[Repair] = []  # of other streams, which images do not have
        for stream in source.streams if source is not None else ():
            self.warnings.append(
                f"The {stream.kind} stream {stream.index} ({stream.codec}) was left out of the images."
            )
        self._source = source
        is_full = is_rgb(self.pix_fmt) or self.pix_fmt.startswith("yuvj")
        self._coding = Coding(SMPTE170M, is_full)  # the only one that JPEG and WebP have
        self._folder = PartFolder(
            destination, creates_folder=destination.path.name != Path(path).name, overwrite=overwrite
        )
        self._count = 0
        super().__init__(self._folder)

    def write(self, frame: Picture, pts: Fraction, duration: Fraction) -> None:
        """Write a frame, RGB (3, H, W) or RGB and straight alpha (4, H, W), uint16 of which 65535 is white.

        Images have no times: `pts` and `duration` are not stored.
        """
        assert isinstance(frame, np.ndarray)
        if self._source is not None and self._source.display_matrix is not None:
            frame = turn_upright(frame, self._source.display_matrix)
        image = encoder_frame(frame, self._encoding, self._coding, self._tags())
        image.pts, image.time_base = self._count, Fraction(1, 25)
        self._count += 1
        with self._file.media_errors():
            self._save(self._encoder.encode(image))

    def _open(self) -> None:
        encoder = av.CodecContext.create(self.codec, "w")
        assert isinstance(encoder, av.VideoCodecContext)
        encoder.width, encoder.height = self.coded_size
        encoder.pix_fmt, encoder.time_base = self.pix_fmt, Fraction(1, 25)
        tags = self._tags()
        encoder.colorspace, encoder.color_range = tags.matrix, tags.range
        encoder.color_primaries, encoder.color_trc = tags.primaries, tags.transfer
        if self._source is not None:
            encoder.sample_aspect_ratio = pixel_aspect(upright_info(self._source), self.coded_size)
        encoder.options = within_quota(self.codec, self._encoding.options)
        try:
            with keep_priority():
                encoder.open()
        except av.error.FFmpegError as error:
            raise MediaError(
                f"{self.codec} refuses {self.coded_size[0]}x{self.coded_size[1]} {self.pix_fmt} with the options"
                f" {dict(self._encoding.options)} ({error.strerror}): change them."
            ) from error
        if encoder.options:
            raise MediaError(f"{self.codec} has no option '{next(iter(encoder.options))}': leave it out.")
        self._encoder = encoder

    def _finish(self) -> None:
        if not self._count:
            raise MediaError(f"No frame was written to {self.path}: choose an input that has frames.")
        self._save(self._encoder.encode(None))

    def _save(self, packets: list[Packet]) -> None:
        for packet in packets:
            self._folder.add(bytes(packet))

    def _tags(self) -> ColorTags:
        color = self._source.color if self._source is not None else ColorTags()
        if color.transfer in _ORDINARY_TRANSFERS and color.primaries in _ORDINARY_PRIMARIES:
            color = ColorTags()
        return ColorTags(
            RGB if is_rgb(self.pix_fmt) else SMPTE170M,
            color.primaries,
            color.transfer,
            FULL_RANGE if self._coding.full_range else LIMITED_RANGE,
        )
