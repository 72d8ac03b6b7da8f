"""HEIF and AVIF: items with properties in a `meta` box (ISO/IEC 23008-12, and AVIF 1.2)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from anonymix_plugin.errors import UnreadableImageError
from anonymix_plugin.images._colours import profile_of_cicp
from anonymix_plugin.images._containers._bitstreams import av1_size, hevc_parameters, hevc_slices
from anonymix_plugin.images._containers._boxes import Cursor, box, boxes
from anonymix_plugin.images._containers._container import Container, damaged, several, truncated
from anonymix_plugin.images._exif import parse_exif
from anonymix_plugin.images._marker_text import from_user_comment
from anonymix_plugin.images._orientation import compose

_FORMATS: Final = {b"hvc1": "HEIF", b"av01": "AVIF"}
_CODECS: Final = {b"hvc1": b"hvcC", b"av01": b"av1C"}
_TURNED: Final = (1, 8, 3, 6)  # EXIF's word for turns of 0, 90, 180 and 270 degrees anti-clockwise
_MIRRORED: Final = (4, 2)  # top and bottom exchanged, left and right exchanged
_TRANSFORMS: Final = frozenset({b"clap", b"irot", b"imir"})
_KEPT: Final = frozenset({b"hvcC", b"av1C", b"ispe", b"pixi", b"auxC"})
_ALPHA: Final = frozenset({b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1"})
_MOST_ITEMS: Final = 10_000
_MOST_ENTRIES: Final = 100_000  # places, references or properties of all items together, however small each is


@dataclass
class _Item:
    """One item: what it is, where its data lie, its properties in their order, whom it refers to."""

    kind: bytes = b""
    parts: list[tuple[int, int, int]] = field(default_factory=list)  # place, start, length; place 1 is `idat`
    properties: list[tuple[bytes, bytes, bool]] = field(default_factory=list)  # name, content, essential
    references: list[tuple[bytes, list[int]]] = field(default_factory=list)

    def all(self, name: bytes) -> list[bytes]:
        return [content for kind, content, _ in self.properties if kind == name]

    def of(self, kind: bytes) -> list[int]:
        return [other for name, others in self.references if name == kind for other in others]

    @property
    def size(self) -> tuple[int, int]:
        extents = self.all(b"ispe")
        if len(extents) != 1 or len(extents[0]) < 12:
            raise ValueError("it does not declare its size")
        width, height = struct.unpack(">II", extents[0][4:12])
        return width, height


@dataclass
class _File:
    data: bytes
    primary: int = 0
    items: dict[int, _Item] = field(default_factory=dict)
    inner: bytes = b""  # the content of `idat`

    def content(self, item: _Item, where: str) -> bytes:
        if sum(length for _, _, length in item.parts) > len(self.data):
            raise ValueError("an item is larger than the file")
        parts = []
        for place, start, length in item.parts:
            source = (self.data, self.inner)[place]
            if start + length > len(source):
                raise truncated(_name(self.data), where)
            parts.append(source[start : start + length if length else None])  # 0: up to the end
        return b"".join(parts)


def examine_heif(data: bytes, where: str) -> Container:
    """Takes the primary item, the tiles and the transparency that it is made of, and nothing else.

    The lean copy is a new file of these alone; parameters between the slices of a picture are left out. Which
    way up it is, and what is cut off, the properties `irot`, `imir` and `clap` say; EXIF and XMP are not
    asked (ISO/IEC 23008-12, annex A). Files with a track of pictures are refused.
    """
    try:
        file = _read(data, where)
        primary = file.items[file.primary]
        if primary.kind == b"tmap":  # a recipe of how to brighten the picture that it begins with
            file.primary = primary.of(b"dimg")[0]
            primary = file.items[file.primary]
        return _examined(file, primary, where)
    except (ValueError, LookupError, struct.error, ZeroDivisionError) as error:
        detail = str(error) if type(error) is ValueError else "its items do not fit together"
        raise damaged(_name(data), detail, where) from None


def _examined(file: _File, primary: _Item, where: str) -> Container:
    tiles = [file.items[number] for number in primary.of(b"dimg")] if primary.kind == b"grid" else [primary]
    codec = tiles[0].kind if tiles else b""
    if codec not in _FORMATS or any(tile.kind != codec for tile in tiles):
        name = (codec if codec not in _FORMATS else primary.kind).decode("latin-1")
        raise UnreadableImageError(
            f"its picture is of the kind {name!a}, which is not supported",
            where=where,
            fix="convert it to JPEG, PNG, WebP or TIFF",
        )
    wanted = {file.primary: primary}
    wanted |= {number: file.items[number] for number in primary.of(b"dimg")}
    for number, item in file.items.items():
        if set(item.of(b"auxl")) & wanted.keys() and _is_alpha(item):
            wanted = wanted | {number: item} | {tile: file.items[tile] for tile in item.of(b"dimg")}
            _few(len(wanted) * len(tiles))
    lean, largest = _lean(file, wanted, codec, where)
    crop, orientation = _transforms(primary)
    colours = [*primary.all(b"colr"), *tiles[0].all(b"colr")]
    exif = parse_exif(_exif(file, where))
    return Container(
        _FORMATS[codec],
        *primary.size,
        lean,
        orientation=orientation,
        marker=from_user_comment(exif.user_comment),
        block=largest,
        crop=crop,
        profile=_profile(colours),
    )


def _read(data: bytes, where: str) -> _File:
    file = _File(data)
    meta = _meta(data, where)
    for name, content in boxes(data, meta.at, meta.end):
        if name == b"pitm":
            version, _ = content.full()
            file.primary = content.number(4 if version else 2)
        elif name == b"iinf":
            _read_entries(content, file.items)
        elif name == b"idat":
            file.inner = content.bytes(content.end - content.at)
    for name, content in boxes(data, meta.at, meta.end):
        if name == b"iloc":
            _read_places(content, file.items)
        elif name == b"iref":
            _read_references(content, file.items)
        elif name == b"iprp":
            _read_properties(content, file.items)
    return file


def _name(data: bytes) -> str:
    """What the file calls itself in the brands of its first box."""
    brands = data[8 : int.from_bytes(data[:4], "big")]
    return "AVIF" if b"avif" in brands or b"avis" in brands else "HEIF"


def _meta(data: bytes, where: str) -> Cursor:
    """The content of the box that lists the pictures."""
    meta: Cursor | None = None
    try:
        for name, content in boxes(data):
            if name == b"moov":
                raise several(_name(data), 0, where)
            meta = content if meta is None and name == b"meta" else meta
    except ValueError:
        if meta is None:  # what follows may be a film, or cut off; where the pictures lie is checked
            raise truncated(_name(data), where) from None
    if meta is None:
        raise ValueError("it holds no pictures")
    meta.full()
    return meta


def _read_entries(content: Cursor, items: dict[int, _Item]) -> None:
    version, _ = content.full()
    content.bytes(4 if version else 2)
    for name, entry in boxes(content.data, content.at, content.end):
        if name != b"infe":
            continue
        version, _ = entry.full()
        if version < 2 or len(items) >= _MOST_ITEMS:
            raise ValueError("its list of items is not valid")
        number = entry.number(2 if version == 2 else 4)
        entry.bytes(2)
        items[number] = _Item(entry.bytes(4))


def _read_places(content: Cursor, items: Mapping[int, _Item]) -> None:
    version, _ = content.full()
    sizes, more = content.number(1), content.number(1)
    offset_size, length_size, base_size = sizes >> 4, sizes & 15, more >> 4
    total = 0
    index_size = more & 15 if version else 0
    for _ in range(content.number(4 if version == 2 else 2)):
        number = content.number(4 if version == 2 else 2)
        place = content.number(2) & 15 if version else 0
        source = content.number(2)
        base = content.number(base_size)
        parts = []
        count = content.number(2)
        total = _few(total + count)
        for _ in range(count):
            content.bytes(index_size)
            parts.append((place, base + content.number(offset_size), content.number(length_size)))
        if number in items:
            # In another file, or within another item: such an item has no data here.
            items[number].parts = parts if place < 2 and not source else []


def _read_references(content: Cursor, items: Mapping[int, _Item]) -> None:
    version, _ = content.full()
    size = 4 if version else 2
    total = 0
    for name, entry in boxes(content.data, content.at, content.end):
        number, count = entry.number(size), entry.number(2)
        total = _few(total + count)
        others = [entry.number(size) for _ in range(count)]
        if number in items:
            items[number].references.append((name, others))


def _read_properties(content: Cursor, items: Mapping[int, _Item]) -> None:
    known: list[tuple[bytes, bytes]] = []
    total = 0
    for name, inner in boxes(content.data, content.at, content.end):
        if name == b"ipco":
            known = [(kind, each.bytes(each.end - each.at)) for kind, each in boxes(inner.data, inner.at, inner.end)]
    for name, inner in boxes(content.data, content.at, content.end):
        if name != b"ipma":
            continue
        version, flags = inner.full()
        wide = flags & 1
        for _ in range(_few(inner.number(4))):
            item = items.get(inner.number(4 if version else 2))
            count = inner.number(1)
            total = _few(total + count)
            for _ in range(count):
                index = inner.number(1 + wide)
                essential, index = bool(index >> (7 + 8 * wide)), index & (0x7FFF if wide else 0x7F)
                if item is not None and index:
                    item.properties.append((*known[index - 1], essential))


def _few(count: int) -> int:
    """The count itself, if it is no attack."""
    if count > _MOST_ENTRIES:
        raise ValueError("its lists are absurdly long")
    return count


def _is_alpha(item: _Item) -> bool:
    return any(content[4:].split(b"\0")[0] in _ALPHA for content in item.all(b"auxC"))


def _transforms(item: _Item) -> tuple[tuple[int, int, int, int] | None, int]:
    """What is cut off, and which way up the rest is; the order is the one that MIAF asks for."""
    crop, orientation = None, 1
    for name, content, _ in item.properties:
        if name == b"clap":
            if orientation != 1 or crop:
                raise ValueError("it is cut twice, or after it was turned")
            crop = _crop(content, item.size)
        elif name == b"irot":
            orientation = compose(orientation, _TURNED[content[0] & 3])
        elif name == b"imir":
            orientation = compose(orientation, _MIRRORED[content[0] & 1])
    return crop, orientation


def _crop(content: bytes, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a clean aperture (ISO/IEC 14496-12, section 12.1.4)."""
    numbers = struct.unpack(">IIIIiIiI", content[:32])
    width, height, x, y = (Fraction(*numbers[at : at + 2]) for at in (0, 2, 4, 6))
    left, top = (size[0] - width) / 2 + x, (size[1] - height) / 2 + y
    found = tuple(round(value) for value in (left, top, left + width, top + height))
    if not (0 <= found[0] < found[2] <= size[0] and 0 <= found[1] < found[3] <= size[1]):
        raise ValueError("what is to be shown lies outside the picture")
    return found[0], found[1], found[2], found[3]


def _profile(colours: Iterable[bytes]) -> bytes:
    named = b""
    for content in colours:
        if content[:4] in {b"prof", b"rICC"}:
            return content[4:]
        if content[:4] == b"nclx" and not named:
            named = profile_of_cicp(*struct.unpack(">HH", content[4:8]))
    return named


def _exif(file: _File, where: str) -> bytes:
    """The EXIF block of the primary item; b"" where there is none, or it is damaged."""
    for item in file.items.values():
        if item.kind == b"Exif" and file.primary in item.of(b"cdsc"):
            try:
                block = file.content(item, where)
            except (ValueError, UnreadableImageError):
                continue
            return block[4 + int.from_bytes(block[:4], "big") :]
    return b""


def _lean(file: _File, wanted: Mapping[int, _Item], codec: bytes, where: str) -> tuple[bytes, tuple[int, int]]:
    """A new file of some of the items, and the size of the largest piece in it."""
    properties: dict[bytes, int] = {}  # as they are written -> index
    numbers = {old: new for new, old in enumerate(wanted, 1)}
    entries, places, bindings, references, body = [], [], [], [], []
    at, largest = 0, (0, 0)
    for old, item in wanted.items():
        content = file.content(item, where)
        if item.kind == codec:
            size = _coded_size(item, content, codec)
            content = content if codec == b"av01" else hevc_slices(content, item.all(b"hvcC")[0])
            largest = max(largest[0], size[0]), max(largest[1], size[1])
        elif item.kind == b"grid":
            _check_grid(file, item, content)
        else:
            raise ValueError("it is made of items of different kinds")
        if old != file.primary and not _is_alpha(item) and _TRANSFORMS & {name for name, *_ in item.properties}:
            raise ValueError("its tiles are turned or cut")
        bound = []
        for name, value in _kept(item):
            bound.append(0x80 | properties.setdefault(box(name, value), len(properties) + 1))
        if len(properties) > 127:
            raise ValueError("it has too many properties")
        entries.append(box(b"infe", b"\2\0\0\0", struct.pack(">HH", numbers[old], 0), item.kind, b"\0"))
        places.append((numbers[old], at, len(content)))
        bindings.append(struct.pack(">HB", numbers[old], len(bound)) + bytes(bound))
        for name, others in item.references:
            if name in {b"dimg", b"auxl", b"prem"} and all(other in numbers for other in others):
                known = [numbers[other] for other in others]
                references.append(box(name, struct.pack(f">HH{len(known)}H", numbers[old], len(known), *known)))
        body.append(content)
        at += len(content)
        if at > 2 * len(file.data):
            raise ValueError("its items are larger than the file")
    brand = b"heic" if codec == b"hvc1" else b"avif"

    def head(start: int) -> bytes:
        rows = b"".join(
            struct.pack(">HHHII", number, 0, 1, start + offset, length) for number, offset, length in places
        )
        return box(b"ftyp", brand, bytes(4), b"mif1", brand, b"miaf") + box(
            b"meta",
            bytes(4),
            box(b"hdlr", bytes(8), b"pict", bytes(13)),
            box(b"pitm", bytes(4), struct.pack(">H", numbers[file.primary])),
            box(b"iloc", bytes(4), b"\x44\0", struct.pack(">H", len(places)), rows),
            box(b"iinf", bytes(4), struct.pack(">H", len(entries)), *entries),
            *([box(b"iref", bytes(4), *references)] if references else []),
            box(
                b"iprp",
                box(b"ipco", *properties),
                box(b"ipma", bytes(4), struct.pack(">I", len(bindings)), *bindings),
            ),
        )

    return head(len(head(0)) + 8) + box(b"mdat", *body), largest


def _coded_size(item: _Item, content: bytes, codec: bytes) -> tuple[int, int]:
    records = item.all(_CODECS[codec])
    if len(records) != 1:
        raise ValueError("the decoder's configuration is missing or doubled")
    if codec == b"hvc1":
        return hevc_parameters(records[0])[1]
    size = av1_size(content)
    if len(records[0]) > 4:  # the record may hold a sequence header, too
        other = av1_size(records[0][4:])
        size = max(size[0], other[0]), max(size[1], other[1])
    return size


def _kept(item: _Item) -> list[tuple[bytes, bytes]]:
    kept = []
    for name, content, essential in item.properties:
        if name in _KEPT or (name == b"colr" and content[:4] == b"nclx"):
            record = hevc_parameters(content)[0] if name == b"hvcC" else content
            kept.append((name, record))
        elif essential and name not in _TRANSFORMS | {b"colr"}:
            raise ValueError("it needs an extension that is not known")
    return kept


def _check_grid(file: _File, item: _Item, content: bytes) -> None:
    """Refuses tiles that do not cover their picture, or reach beyond it by more than a tile."""
    cursor = Cursor(content)
    _, wide = cursor.number(1), 2 + 2 * (cursor.number(1) & 1)
    rows, columns = cursor.number(1) + 1, cursor.number(1) + 1
    size = cursor.number(wide), cursor.number(wide)
    tiles = [file.items[number] for number in item.of(b"dimg")]
    if len(tiles) != rows * columns or size != item.size:
        raise ValueError("its tiles do not fit together")
    width, height = tiles[0].size
    whole = all(tile.size == (width, height) for tile in tiles)
    fits = (columns - 1) * width < size[0] <= columns * width and (rows - 1) * height < size[1] <= rows * height
    if not (whole and fits):
        raise ValueError("its tiles do not fit together")
