"""The two protobuf encodings that are written by hand: ready-made bytes are joined, and new fields are added.

Source: protobuf.dev/programming-guides/encoding.
"""


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field: a message, a string or bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def number_field(number: int, value: int) -> bytes:
    """A field of an unsigned integer or a bool."""
    return varint(number << 3) + varint(value)


def varint(number: int) -> bytes:
    """`number` (not negative) in seven bits a byte."""
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
