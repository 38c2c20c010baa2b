"""Read serialized protobuf messages field by field, without their schema."""

from collections.abc import Iterator

# Wire types.
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10  # bytes, of 64 bits


def read_fields(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the fields of a message: number, wire type, and where the value starts and stops.

    Raises ValueError or IndexError for bytes that are no message.
    """
    while start < stop:
        tag, start = read_varint(data, start)
        wire = tag & 7
        if wire == VARINT:
            end = read_varint(data, start)[1]
        elif wire == LENGTH_DELIMITED:
            length, start = read_varint(data, start)
            end = start + length
        elif wire in (FIXED64, FIXED32):
            end = start + (8 if wire == FIXED64 else 4)
        else:
            raise ValueError(f"unknown wire type {wire}")
        if end > stop:
            raise ValueError("a field is longer than its message")
        yield tag >> 3, wire, start, end
        start = end


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the variable-length integer (seven bits in each byte) at a position, and where it ends."""
    value = 0
    for index in range(_LONGEST_VARINT):
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            return value, position + index + 1
    raise ValueError("an integer has more than 64 bits")
