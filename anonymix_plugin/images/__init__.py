"""Images in and out: hostile files to upright RGB photos, cancelable faces to marked files."""

from anonymix_plugin.images._arrays import ChannelOrder
from anonymix_plugin.images._colours import profile_of_cicp, rgb_profile
from anonymix_plugin.images._decode import PhotoSource, decode_photo
from anonymix_plugin.images._default_limits import default_limits, limits_for_all
from anonymix_plugin.images._encode import ImageFormat, encode_cancelable, encode_record, save_cancelable
from anonymix_plugin.images._glance import Glance, glance
from anonymix_plugin.images._marker import Marker, read_marker
from anonymix_plugin.images._sources import PHOTO_SUFFIXES, read_source
from anonymix_plugin.limits import ImageLimits

__all__ = [
    "PHOTO_SUFFIXES",
    "ChannelOrder",
    "Glance",
    "ImageFormat",
    "ImageLimits",
    "Marker",
    "PhotoSource",
    "decode_photo",
    "default_limits",
    "encode_cancelable",
    "encode_record",
    "glance",
    "limits_for_all",
    "profile_of_cicp",
    "read_marker",
    "read_source",
    "rgb_profile",
    "save_cancelable",
]
