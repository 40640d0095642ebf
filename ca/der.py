"""The to-be-signed part of a leaf as DER, put together from pieces that are encoded once.

`x509.CertificateBuilder` spends four fifths of an issuance on encoding what is the same in every leaf of an
issuer. Encoding it once leaves room to verify every certificate and still be faster than the bare builder. A
property test holds the bytes equal to the builder's own. Source: RFC 5280 section 4.1, ITU-T X.690.
"""

import binascii
import hashlib
from collections.abc import Sequence
from datetime import datetime
from functools import cache, lru_cache
from typing import Final

from cryptography import x509

_BOOLEAN, _INTEGER, _BIT_STRING, _OCTET_STRING, _OID = 0x01, 0x02, 0x03, 0x04, 0x06
_UTC_TIME, _GENERALIZED_TIME, _SEQUENCE = 0x17, 0x18, 0x30
_TRUE: Final = bytes((_BOOLEAN, 1, 0xFF))
_VERSION_3: Final = bytes.fromhex("a003020102")  # [0] EXPLICIT INTEGER 2
_EXTENSIONS: Final = 0xA3  # [3] EXPLICIT

_GENERAL_NAME: Final = {"DNS": 0x82, "URI": 0x86}  # [2] and [6] IMPLICIT IA5String
_SAN_CRITICAL: Final = bytes.fromhex("0603551d110101ff")  # OID 2.5.29.17, TRUE
_SKI: Final = bytes.fromhex("301d0603551d0e04160414")  # OID 2.5.29.14, OCTET STRING of an OCTET STRING of 20 octets
# SubjectPublicKeyInfo of an uncompressed P-256 point ends in its 65 octets (RFC 5480 2.2).
_POINT_BYTES: Final = 65
_LINE_BYTES: Final = 48  # 64 characters of base64 (RFC 7468 2)

ECDSA_WITH_SHA256: Final = bytes.fromhex("300a06082a8648ce3d040302")  # RFC 5758 3.2: no parameters
RSA_WITH_SHA256: Final = bytes.fromhex("300d06092a864886f70d01010b0500")  # RFC 4055 5: NULL parameters


def value(tag: int, content: bytes) -> bytes:
    """Tag, length and content (X.690 8.1.3: short form below 128, else the fewest octets)."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def sequence(*parts: bytes) -> bytes:
    return value(_SEQUENCE, b"".join(parts))


def integer(number: int) -> bytes:
    """A non-negative INTEGER: one octet more than the bits need where the sign bit would be set."""
    return value(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def time(moment: datetime) -> bytes:
    """UTCTime through 2049, GeneralizedTime from 2050 (RFC 5280 4.1.2.5); `moment` in UTC, whole seconds."""
    # Not strftime, which costs as much as the signature.
    year, month, day, hour, minute, second, *_ = moment.utctimetuple()
    rest = b"%02d%02d%02d%02d%02dZ" % (month, day, hour, minute, second)
    if year < 2050:
        return value(_UTC_TIME, b"%02d" % (year % 100) + rest)
    return value(_GENERALIZED_TIME, b"%04d" % year + rest)


def extension(content: x509.ExtensionType, *, critical: bool) -> bytes:
    """Extension ::= SEQUENCE { extnID, critical DEFAULT FALSE, extnValue OCTET STRING }."""
    return sequence(
        oid(content.oid.dotted_string), _TRUE if critical else b"", value(_OCTET_STRING, content.public_bytes())
    )


@cache
def oid(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER (X.690 8.19): the first two arcs share an octet, the others are base 128."""
    first, second, *arcs = (int(arc) for arc in dotted.split("."))
    content = bytearray((first * 40 + second,))
    for arc in arcs:
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(arc & 0x7F | 0x80)
        content += bytes(reversed(groups))
    return value(_OID, bytes(content))


def alternative_names(names: Sequence[tuple[str, str]]) -> bytes:
    """The critical SAN extension of names given as ("URI" or "DNS", text) (RFC 5280 4.2.1.6)."""
    listed = b"".join([value(_GENERAL_NAME[kind], text.encode("ascii")) for kind, text in names])
    return sequence(_SAN_CRITICAL, value(_OCTET_STRING, value(_SEQUENCE, listed)))


def subject_key_identifier(public_key: bytes) -> bytes:
    """The SKI extension for a SubjectPublicKeyInfo of P-256 (RFC 5280 4.2.1.2, method 1).

    SHA-1 of the key's bits: an identifier and not a proof, hence no weakness.
    """
    return _SKI + hashlib.sha1(public_key[-_POINT_BYTES:], usedforsecurity=False).digest()


def to_be_signed(
    serial: int, before_validity: bytes, validity: tuple[datetime, datetime], after_validity: bytes, extensions: bytes
) -> bytes:
    """TBSCertificate (RFC 5280 4.1): `before_validity` is algorithm and issuer, `after_validity` subject and key."""
    return sequence(
        _VERSION_3,
        integer(serial),
        before_validity,
        period(*validity),
        after_validity,
        value(_EXTENSIONS, value(_SEQUENCE, extensions)),
    )


@lru_cache(maxsize=16)
def period(start: datetime, end: datetime) -> bytes:
    """Validity; many leaves are issued within one second."""
    return sequence(time(start), time(end))


def certificate(tbs: bytes, algorithm: bytes, signature: bytes) -> bytes:
    """Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signatureValue BIT STRING }."""
    return sequence(tbs, algorithm, value(_BIT_STRING, b"\0" + signature))


def pem(label: str, content: bytes) -> bytes:
    """The textual encoding (RFC 7468): base64 in lines of 64 characters."""
    name = label.encode()
    encode, starts = binascii.b2a_base64, range(0, len(content), _LINE_BYTES)
    lines = b"".join([encode(content[start : start + _LINE_BYTES]) for start in starts])
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (name, lines, name)
