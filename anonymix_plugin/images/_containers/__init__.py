"""Image files taken apart without decoding them: format, size, orientation, marker, and a lean copy.

The lean copy is what the decoder gets to see: the first frame with what its pixels need, and no
metadata. So whatever a hostile file carries in comments, profiles, thumbnails and further frames never
reaches the decoder, a size is known before memory is set aside for it, and a file that ends too early
is caught here, whatever the host has told its copy of Pillow to tolerate.
"""

from anonymix_plugin.images._containers._container import Container, several, truncated
from anonymix_plugin.images._containers._sniff import examine
from anonymix_plugin.images._containers._tiff import camera_raw_of

__all__ = ["Container", "camera_raw_of", "examine", "several", "truncated"]
