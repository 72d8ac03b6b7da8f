from __future__ import annotations

import dataclasses
import errno
import io
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anonymix_plugin.errors import OutputError, UsageError
from anonymix_plugin.images import decode_photo, encode_cancelable, read_marker, save_cancelable
from anonymix_plugin.words import shown


def kind_of(data: bytes) -> str | None:
    with Image.open(io.BytesIO(data)) as image:
        return image.format


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.png", "PNG"), ("a.PNG", "PNG"), ("a.jpg", "JPEG"), ("a.jpeg", "JPEG"), ("a.webp", "WEBP")],
)
def test_the_suffix_names_the_format(name, kind, face, tmp_path):
    save_cancelable(face, tmp_path / name)
    data = (tmp_path / name).read_bytes()
    assert kind_of(data) == kind
    assert data == encode_cancelable(face, kind)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_format_given_wins_over_the_suffix(face, tmp_path):
    save_cancelable(face, str(tmp_path / "a.png"), format="JPEG")
    assert kind_of((tmp_path / "a.png").read_bytes()) == "JPEG"


def test_png_keeps_every_pixel(face):
    photo = decode_photo(encode_cancelable(face), allow_protected=True)
    assert np.array_equal(photo.pixels, face.pixels)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_quality_trades_size_for_similarity(kind, face):
    sizes, errors = [], []
    for quality in (10, 95):
        data = encode_cancelable(face, kind, quality=quality)
        pixels = decode_photo(data, allow_protected=True).pixels
        sizes.append(len(data))
        errors.append(np.abs(pixels.astype(int) - face.pixels).mean())
    assert sizes[0] < sizes[1]
    assert errors[0] > errors[1]
    assert errors[1] < 3


def test_the_same_face_gives_the_same_bytes(face):
    for kind in ("PNG", "JPEG", "WEBP"):
        assert encode_cancelable(face, kind) == encode_cancelable(face, kind)


def test_views_are_encoded(face):
    turned = dataclasses.replace(face, pixels=face.pixels[::-1, ::-1])
    photo = decode_photo(encode_cancelable(turned), allow_protected=True)
    assert np.array_equal(photo.pixels, face.pixels[::-1, ::-1])


@pytest.mark.parametrize("name", ["a.gif", "a", "a.png.txt"])
def test_an_unknown_suffix_is_refused(name, face, tmp_path):
    with pytest.raises(UsageError, match="suffix"):
        save_cancelable(face, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_senseless_options_are_refused(face):
    with pytest.raises(UsageError, match="format"):
        encode_cancelable(face, "GIF")
    for quality in (0, 101, 95.5, True):
        with pytest.raises(UsageError, match="quality"):
            encode_cancelable(face, "JPEG", quality=quality)
    for pixels in (face.pixels[:, :, 0], face.pixels.astype(np.float32), face.pixels[:0]):
        with pytest.raises(UsageError, match="shape"):
            encode_cancelable(dataclasses.replace(face, pixels=pixels))


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_at_any_step_leaves_nothing_half_written(step, existing, face, tmp_path, monkeypatch):
    target = tmp_path / "a.png"
    if existing:
        target.write_bytes(b"the old one")
    fail_at(step, OSError(errno.ENOSPC, "No space left on device"), monkeypatch)
    with pytest.raises(OutputError, match="No space left"):
        save_cancelable(face, target)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([b"the old one"] if existing else [])


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_an_interrupt_at_any_step_leaves_nothing_behind(step, face, tmp_path, monkeypatch):
    fail_at(step, KeyboardInterrupt(), monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        save_cancelable(face, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def fail_at(step: str, error: BaseException, patch: pytest.MonkeyPatch) -> None:
    def fail(*args, **kwargs):
        raise error

    if step == "write":
        real = io.open

        def half(file, *args, **kwargs):
            stream = real(file, *args, **kwargs)
            if isinstance(file, int):
                stream.write(b"half of it")
                stream.flush()
                stream.close()
                raise error
            return stream

        patch.setattr("builtins.open", half)
    elif step == "fsync":
        patch.setattr(os, "fsync", fail)
    else:
        patch.setattr(Path, "replace", fail)


def test_an_existing_file_is_replaced_whole(face, tmp_path):
    target = tmp_path / "a.png"
    target.write_bytes(b"x" * 1_000_000)
    save_cancelable(face, target)
    assert read_marker(target) is not None
    assert target.stat().st_size < 1_000_000


@pytest.mark.parametrize("where", ["missing/a.png", "file/a.png", "folder.png", "a\0b.png"])
def test_places_that_cannot_be_written_are_named(where, face, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError) as caught:
        save_cancelable(face, tmp_path / where)
    assert caught.value.where == shown(tmp_path / where)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder.png"]


def test_the_longest_name_a_file_may_have_is_written(face, tmp_path):
    target = tmp_path / ("n" * 251 + ".png")
    save_cancelable(face, target)
    assert read_marker(target) is not None


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_the_file_has_the_permissions_of_any_new_file(face, tmp_path):
    save_cancelable(face, tmp_path / "a.png")
    (tmp_path / "other").write_bytes(b"")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1
