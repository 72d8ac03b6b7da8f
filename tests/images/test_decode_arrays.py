from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from anonymix_plugin.errors import BadArrayError, ImageTooLargeError, ImageTooSmallError, UsageError
from anonymix_plugin.images import ImageLimits, decode_photo


def test_rgb_bytes_are_taken_as_they_are_and_copied(picture):
    photo = decode_photo(picture)
    assert (photo.pixels == picture).all()
    assert photo.source == "<array>"
    picture[:] = 0
    assert photo.pixels.any()


def test_bgr_is_turned_round(picture):
    assert (decode_photo(picture, channel_order="bgr").pixels == picture[:, :, ::-1]).all()


def test_bgr_with_alpha_keeps_alpha_last(picture):
    alpha = np.full((*picture.shape[:2], 1), 255, np.uint8)
    alpha[:10] = 0
    pixels = decode_photo(np.dstack([picture, alpha]), channel_order="bgr").pixels
    assert (pixels[:10] == 128).all()
    assert (pixels[10:] == picture[10:, :, ::-1]).all()


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 1)])
def test_grey_arrays_become_three_equal_channels(shape):
    grey = np.arange(2000, dtype=np.uint8).reshape(shape)
    pixels = decode_photo(grey).pixels
    assert pixels.shape == (40, 50, 3)
    assert (pixels == grey.reshape(40, 50, 1)).all()


@given(hnp.arrays(np.uint8, (32, 33, 3)), st.sampled_from(["f2", "f4", "f8", "<u2", ">u2"]))
def test_every_dtype_gives_back_the_bytes_it_was_made_from(values, dtype):
    kind = np.dtype(dtype)
    wide = values.astype(kind) * 257 if kind.kind == "u" else (values / 255).astype(kind)
    assert (decode_photo(wide).pixels == values).all()


def test_strided_views_are_taken(picture):
    big = np.repeat(np.repeat(picture, 2, 0), 2, 1)
    assert (decode_photo(big[::2, ::-2]).pixels == picture[:, ::-1]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.01, 1.01, 255.0])
def test_floats_that_are_no_light_are_refused(value):
    array = np.full((40, 40, 3), 0.5, np.float32)
    array[20, 20, 1] = value
    with pytest.raises(BadArrayError):
        decode_photo(array)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
@pytest.mark.parametrize("noise", [1e-7, 5e-4])
def test_rounding_errors_beyond_0_and_1_are_no_reason_to_refuse(kind, noise):
    array = np.linspace(-noise, 1 + noise, 1600).reshape(40, 40).astype(kind)
    pixels = decode_photo(array).pixels
    assert pixels.min() == 0
    assert pixels.max() == 255
    assert np.array_equal(pixels, decode_photo(np.clip(array, 0, 1)).pixels)


def test_floats_out_of_range_are_told_with_their_true_numbers():
    with pytest.raises(BadArrayError, match=r"from 0 to 1\.002 instead"):
        decode_photo(np.linspace(0, 1.002, 1600).reshape(40, 40))


@given(
    hnp.arrays(np.uint8, (33, 34, 4), elements=st.integers(1, 255)),
    st.sampled_from(["read-only", "Fortran order", "turned round", "strided", "transposed", "subclass"]),
    st.sampled_from(["u1", ">u2", "f2", "f8"]),
)
def test_however_an_array_lies_in_memory_it_is_the_same_photo(values, how, kind):
    dtype = np.dtype(kind)
    array = values.astype(dtype) * 257 if dtype.kind == "u" and dtype.itemsize == 2 else values.astype(dtype)
    if dtype.kind == "f":
        array = (values / 255).astype(dtype)
    expected = decode_photo(array).pixels
    if how == "read-only":
        array.setflags(write=False)
    elif how == "Fortran order":
        array = np.asfortranarray(array)
    elif how == "turned round":
        array = np.ascontiguousarray(array[::-1, ::-1, ::-1])[::-1, ::-1, ::-1]
    elif how == "strided":
        array = np.repeat(array, 3, axis=1)[:, ::3]
    elif how == "transposed":
        array = np.ascontiguousarray(array.transpose(2, 1, 0)).transpose(2, 1, 0)
    else:
        array = array.view(type("Own", (np.ndarray,), {}))
    pixels = decode_photo(array).pixels
    assert type(pixels) is np.ndarray
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert np.array_equal(pixels, expected)


def test_a_batch_gets_the_remedy_that_fits():
    with pytest.raises(BadArrayError, match=r"one image after the other: array\[0\]"):
        decode_photo(np.zeros((1, 40, 40, 3), np.uint8))


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint32, np.uint64, bool, complex, object, "U1", "M8[s]"])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(BadArrayError, match="dtype"):
        decode_photo(np.zeros((40, 40, 3), dtype))


@pytest.mark.parametrize(
    "shape", [(), (40,), (40, 40, 2), (40, 40, 5), (1, 40, 40, 3), (3, 40, 40), (0, 40, 3), (40, 0)]
)
def test_other_shapes_are_refused(shape):
    with pytest.raises(BadArrayError, match="shape"):
        decode_photo(np.zeros(shape, np.uint8))


def test_channels_first_gets_the_remedy_that_fits():
    with pytest.raises(BadArrayError, match="transpose"):
        decode_photo(np.zeros((3, 40, 40), np.uint8))


def test_limits_hold_for_arrays_without_touching_their_values():
    giant = np.broadcast_to(np.uint8(7), (20_000, 20_000, 3))  # takes one byte
    with pytest.raises(ImageTooLargeError):
        decode_photo(giant)
    with pytest.raises(ImageTooSmallError):
        decode_photo(np.zeros((1, 1, 3), np.uint8))
    assert decode_photo(np.zeros((1, 1, 3), np.uint8), limits=ImageLimits(min_side=1)).pixels.shape == (
        1,
        1,
        3,
    )


def test_channel_order_is_for_arrays_alone(files, picture):
    with pytest.raises(UsageError, match="numpy arrays"):
        decode_photo(files["png"], channel_order="bgr")
    with pytest.raises(UsageError, match="numpy arrays"):
        decode_photo(Image.fromarray(picture), channel_order="bgr")
    with pytest.raises(UsageError, match="rgb"):
        decode_photo(picture, channel_order="rbg")
