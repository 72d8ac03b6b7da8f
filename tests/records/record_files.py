"""Records of a portrait, made by other implementations than the one under test.

iso19794 writes ISO/IEC 19794-5:2005, asn1tools the tagged encoding of DG2 and of ISO/IEC 39794-5, nistitl
transactions of ANSI/NIST-ITL.
"""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import asn1tools
import nistitl
from iso19794 import FAC
from PIL import Image

SECRET = b"what was said of the old photo"

# Names and numbers of ICAO Doc 9303-10 and ISO/IEC 39794-5, as far as the tests use them.
_SCHEMA = """
Passport DEFINITIONS IMPLICIT TAGS ::= BEGIN
DG2 ::= [APPLICATION 21] SEQUENCE {
  group [APPLICATION 97] SEQUENCE { count INTEGER, template [APPLICATION 96] SEQUENCE {
    header [1] SEQUENCE {
      version [0] OCTET STRING OPTIONAL, type [1] OCTET STRING OPTIONAL, subtype [2] OCTET STRING OPTIONAL,
      created [3] OCTET STRING OPTIONAL, validity [5] OCTET STRING OPTIONAL, maker [6] OCTET STRING OPTIONAL,
      owner [7] OCTET STRING, format [8] OCTET STRING },
    block CHOICE {
      plain [APPLICATION 46] OCTET STRING,
      nested [APPLICATION 46] SEQUENCE { face [1] EXPLICIT Face } } } } }
Face ::= [APPLICATION 5] SEQUENCE {
  version [0] SEQUENCE { generation [0] INTEGER, year [1] INTEGER },
  representations [1] SEQUENCE OF Representation }
Representation ::= SEQUENCE {
  id [0] INTEGER, image [1] EXPLICIT CHOICE { base [0] EXPLICIT CHOICE { flat [0] Flat } },
  captured [2] SEQUENCE { year [0] INTEGER, month [1] INTEGER OPTIONAL } OPTIONAL,
  quality [3] OCTET STRING OPTIONAL, landmarks [9] OCTET STRING OPTIONAL }
Flat ::= SEQUENCE { data [0] OCTET STRING, about [1] SEQUENCE {
  format [0] EXPLICIT CHOICE { code [0] ENUMERATED { unknown(0), other(1), jpeg(2), lossy(3), lossless(4) } },
  kind [1] EXPLICIT CHOICE { code [0] ENUMERATED { frontal(0) } } OPTIONAL,
  distance [4] INTEGER OPTIONAL,
  size [7] SEQUENCE { width [0] INTEGER, height [1] INTEGER } OPTIONAL } }
END
"""


@cache
def schema() -> Any:
    return asn1tools.compile_string(_SCHEMA, "der")


def coded(image: Image.Image, coding: str) -> bytes:
    stream = io.BytesIO()
    options = {"quality": 90} if coding == "JPEG" else {"quality_mode": "rates", "quality_layers": [8]}
    image.save(stream, coding, **options)
    return stream.getvalue()


def fac(image: Image.Image, coding: str = "JPEG", times: int = 1) -> bytes:
    """ISO/IEC 19794-5:2005 with two feature points, and everything said that can be said."""
    image = image.copy()
    points = [FAC.FACLandmarkPoint(1, 0xC1, 0x1234, 0x4567, 0), FAC.FACLandmarkPoint(1, 0xC2, 0x1235, 0x4568, 0)]
    image.header = {
        "landmark_points": points,
        "gender": "F",
        "eye_colour": "GREEN",
        "hair_colour": "RED",
        "property_mask": ["SPECIFIED", "GLASSES"],
        "expression": "NEUTRAL",
        "pose_yaw": 3,
        "face_image_type": "FULL_FRONTAL",
        "image_data_type": coding,
        "source_type": "STATIC_CAMERA",
    }
    stream = io.BytesIO()
    options = {"save_all": True, "append_images": [image] * (times - 1)} if times > 1 else {}
    image.save(stream, "FAC", version="010", **options)
    return stream.getvalue()


def read_fac(data: bytes) -> FAC.FACImageFile:
    """By iso19794, which sets an attribute that Pillow has made read-only since."""

    class Readable(FAC.FACImageFile):
        mode = property(lambda self: self._mode, lambda self, value: setattr(self, "_mode", value))

    return Readable(io.BytesIO(data))


def fac_2011(image: Image.Image) -> bytes:
    """ISO/IEC 19794-5:2011, put together by hand: no kept package writes it."""
    picture = coded(image, "JPEG")
    body = bytes.fromhex("07e00b1b0b040500ff") + b"\x01\0\x07\0\x09" + b"\x01" + b"\x50\0\x07\0\x09"
    body += b"\0\1" + bytes([2, 5, 7, 180]) + b"\0\0\3" + b"\0\1" + bytes([3, 0, 0, 1, 1, 1])
    body += b"\1\xc1\x12\x34\x45\x67\0\0"
    body += bytes([1, 0]) + image.width.to_bytes(2, "big") + image.height.to_bytes(2, "big") + b"\x28\0\0\0\1"
    body += len(picture).to_bytes(4, "big") + picture
    whole = (4 + len(body)).to_bytes(4, "big") + body
    return b"FAC\x00030\0" + (17 + len(whole)).to_bytes(4, "big") + b"\0\1\0\0\0" + whole


def dg2(block: tuple[str, Any], count: int = 1, padding: bytes = b"") -> bytes:
    header = {"version": b"\1\1", "type": b"\2", "subtype": b"\0", "created": SECRET, "maker": b"\x12\x34"}
    header |= {"owner": b"\1\1", "format": b"\0\x08"}
    template = {"header": header, "block": block}
    return bytes(schema().encode("DG2", {"group": {"count": count, "template": template}})) + padding


def face_39794(image: Image.Image, coding: str = "JPEG", times: int = 1) -> dict[str, Any]:
    about = {
        "format": ("code", "jpeg" if coding == "JPEG" else "lossless"),
        "kind": ("code", "frontal"),
        "distance": 1500,
        "size": {"width": image.width, "height": image.height},
    }
    one = {
        "id": 7,
        "image": ("base", ("flat", {"data": coded(image, coding), "about": about})),
        "captured": {"year": 2026, "month": 11},
        "quality": SECRET,
        "landmarks": SECRET,
    }
    return {"version": {"generation": 3, "year": 2019}, "representations": [one] * times}


def transaction(
    image: Image.Image, coding: str = "JPEG", *, kinds: tuple[str, ...] = ("FACE",), finger: bool = False
) -> bytes:
    """ANSI/NIST-ITL with a record of type 2 and one of type 10 for each kind of photo."""
    message = nistitl.Message()
    message.TOT, message[0].DAT, message[0].TCN = "CAR", "20261127", "0001"
    person = nistitl.AsciiRecord(2)
    person.IDC = 0
    person += nistitl.Field(2, 18, "DOE,JANE")
    message += person
    for number, kind in enumerate(kinds, 1):
        photo = nistitl.AsciiRecord(10)
        photo.IDC = number
        values = {3: kind, 4: "ORG0001", 5: "20261127", 6: image.width, 7: image.height, 8: "1", 9: "500", 10: "500"}
        values |= {11: "JPEGB" if coding == "JPEG" else "JP2", 12: "SRGB", 13: "50", 20: "F", 27: "GRN", 28: "RED"}
        for tag, value in values.items():
            photo += nistitl.Field(10, tag, str(value))
        photo += nistitl.Field(10, 38, SECRET.decode())
        photo += nistitl.BinaryField(10, 999, coded(image, coding))
        message += photo
    if finger:
        print_ = nistitl.AsciiRecord(14)
        print_.IDC = 9
        print_ += nistitl.BinaryField(14, 999, b"ridges")
        message += print_
    return bytes(message.NIST)
