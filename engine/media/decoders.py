"""Choose the decoder of a video stream."""

import av
from av.video.stream import VideoStream

# Decoders of codecs whose alpha FFmpeg's own decoders leave out.
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def decoder_of(stream: VideoStream) -> av.VideoCodecContext:
    """Return a decoder of a stream that returns alpha too, if the stream has any."""
    own = stream.codec_context
    name = _WITH_ALPHA.get(own.codec.canonical_name)
    if name is None or stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) != "1":
        return own
    try:
        decoder = av.CodecContext.create(name, "r")
    except ValueError:  # this build of FFmpeg lacks it
        return own
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.extradata = own.extradata
    return decoder
