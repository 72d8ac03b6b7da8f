"""Images in and out: hostile files to upright RGB photos, cancelable faces to marked files."""

from anonymix_plugin.images._arrays import ChannelOrder
from anonymix_plugin.images._decode import PhotoSource, decode_photo
from anonymix_plugin.images._limits import ImageLimits

__all__ = ["ChannelOrder", "ImageLimits", "PhotoSource", "decode_photo"]
