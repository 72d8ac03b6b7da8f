from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anonymix_plugin.errors import ImageTooLargeError, MissingPackageError, PhotoError, UnreadableImageError, UsageError
from anonymix_plugin.images import ImageLimits, decode_photo


def test_all_kinds_of_sources_give_the_same_photo(tmp_path, files, picture):
    data = files["png"]
    path = tmp_path / "a face.of some.one"
    path.write_bytes(data)
    with path.open("rb") as stream, Image.open(path) as image:
        for source in (
            str(path),
            path,
            data,
            bytearray(data),
            memoryview(data),
            io.BytesIO(data),
            stream,
            image,
        ):
            assert (decode_photo(source).pixels == picture).all()


def test_messages_name_the_file(tmp_path):
    path = tmp_path / "holiday.jpg"
    path.write_bytes(b"no picture at all")
    with pytest.raises(UnreadableImageError, match=r"holiday\.jpg"):
        decode_photo(path)
    with path.open("rb") as stream, pytest.raises(UnreadableImageError, match=r"holiday\.jpg"):
        decode_photo(stream)


@pytest.mark.parametrize(
    "address",
    [
        "https://example.org/a.jpg?token=SECRET",
        "HTTP://example.org/SECRET",
        "data:image/png;base64,SECRET",
        "s3://bucket/SECRET",
        "file:///etc/SECRET",
    ],
)
def test_addresses_are_neither_fetched_nor_repeated(address):
    with pytest.raises(UnreadableImageError, match="not fetched") as caught:
        decode_photo(address)
    assert "SECRET" not in str(caught.value)


def test_paths_that_lead_to_no_file_are_refused(tmp_path):
    for path in (tmp_path / "missing.jpg", tmp_path, "", "a\0b", tmp_path / ("x" * 300)):
        with pytest.raises(UnreadableImageError):
            decode_photo(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    with pytest.raises(UnreadableImageError, match="regular file"):
        decode_photo(pipe)


def test_file_objects_in_text_mode_are_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("hello")
    with path.open() as stream, pytest.raises(UsageError, match="rb"):
        decode_photo(stream)


def test_file_objects_that_fail_are_refused(files):
    closed = io.BytesIO(files["png"])
    closed.close()

    class Broken(io.RawIOBase):
        def read(self, size=-1):
            raise OSError("the cable was pulled")

    class Blocked(io.RawIOBase):
        def read(self, size=-1):
            return None

    for stream in (closed, Broken(), Blocked()):
        with pytest.raises(UnreadableImageError):
            decode_photo(stream)


def test_file_objects_that_give_little_at_a_time_are_read_to_the_end(files, picture):
    class Trickle(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 7))

    assert (decode_photo(Trickle(files["png"])).pixels == picture).all()


def test_endless_file_objects_are_left_at_the_limit():
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size=-1):
            part = min(size, 4096)
            self.given += part
            return bytes(part)

    stream = Endless()
    with pytest.raises(ImageTooLargeError):
        decode_photo(stream, limits=ImageLimits(max_bytes=100_000))
    assert stream.given == 100_001


@pytest.mark.parametrize("source", [None, 7, 1.5, ["a.jpg"], object()])
def test_other_types_are_a_mistake_of_the_caller(source):
    with pytest.raises(UsageError):
        decode_photo(source)


def test_pil_images_that_were_not_loaded_are_checked_like_files(tmp_path, files):
    path = tmp_path / "half.jpg"
    path.write_bytes(files["jpeg"][:-200])
    with Image.open(path) as image, pytest.raises(UnreadableImageError, match=r"half\.jpg"):
        decode_photo(image)
    with pytest.raises(ImageTooLargeError):
        decode_photo(Image.new("1", (20_000, 40)))


def test_a_pil_image_is_left_as_it_was(picture):
    image = Image.fromarray(picture)
    image.getexif()[0x0112] = 6
    decode_photo(image)
    assert image.size == (picture.shape[1], picture.shape[0])
    assert image.getexif()[0x0112] == 6


def test_threads_decode_at_the_same_time(files):
    names = sorted(files) * 8
    expected = {name: decode_photo(data).pixels for name, data in files.items()}
    with ThreadPoolExecutor(8) as pool:
        for name, photo in zip(names, pool.map(lambda name: decode_photo(files[name]), names), strict=True):
            assert np.array_equal(photo.pixels, expected[name])


def test_every_refusal_of_a_photo_says_what_and_what_to_do(tmp_path, files):
    for source in (tmp_path / "none.png", b"", b"junk", files["png"][:40], np.zeros((2, 2, 3), np.uint8)):
        with pytest.raises(PhotoError) as caught:
            decode_photo(source)
        assert caught.value.what
        assert caught.value.where
        assert caught.value.fix


def test_a_file_name_is_no_format(tmp_path, files, picture):
    path = Path(tmp_path / "liar.gif")
    path.write_bytes(files["bmp"])
    assert (decode_photo(path).pixels == picture).all()


def test_a_keystore_in_use_is_not_opened_as_a_photo(tmp_path: Path) -> None:
    """Closing it again would drop the locks of the open store."""
    from anonymix_keystore import KeyFileUnlock, Keystore

    path = tmp_path / "keystore.db"
    with Keystore.create(path, KeyFileUnlock.generate(tmp_path / "key")) as store:
        store.issue("alice")
        for suffix in ("", "-wal", "-shm"):
            with pytest.raises(UnreadableImageError, match="a keystore in use"):
                decode_photo(f"{path}{suffix}")


def test_what_an_error_of_ours_says_is_kept_when_a_source_raises_it() -> None:
    class Elsewhere(io.BytesIO):
        def read(self, _: int | None = -1, /) -> bytes:
            raise MissingPackageError(
                "a package that this needs is not installed", where="pyarrow", fix="pip install it"
            )

    with pytest.raises(MissingPackageError, match="pyarrow"):
        decode_photo(Elsewhere())
