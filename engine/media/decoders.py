"""Choose the decoder of a video stream."""

import av
from av.video.stream import VideoStream

# Decoders of codecs whose alpha FFmpeg's own decoders leave out.
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def decoder_of(stream: VideoStream) -> av.VideoCodecContext:
    """Return a decoder of a stream that returns alpha too, if the stream has any."""
    own = stream.codec_context
    name = _WITH_ALPHA.get(own.codec.canonical_name)
    if name is None or not has_coded_alpha(stream):
        return own
    try:
        decoder = av.CodecContext.create(name, "r")
    except ValueError:  # this build of FFmpeg lacks it
        return own
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.extradata, decoder.thread_type, decoder.thread_count = own.extradata, own.thread_type, own.thread_count
    return decoder


def has_coded_alpha(stream: VideoStream) -> bool:
    """Return whether Matroska or WebM states that a stream has alpha beside its packets."""
    return any(key.lower() == "alpha_mode" and value == "1" for key, value in stream.metadata.items())
