"""The user's configuration: a TOML file that every field of which is checked.

```toml
[models.arcface-mbf]                     # another recogniser in the place of the registry's
path = "weights/my_arcface.onnx"         # relative to the configuration file
sha256 = "9cc6...eb4f"                   # enters the mixer's fingerprint

[models.mobilestylegan.files."SynthesisNetwork.bin"]   # a model of several files: one of them
path = "/srv/weights/SynthesisNetwork.bin"
sha256 = "c7da...9645"

[limits]                                 # of photos, as in images.ImageLimits
max_pixels = 110_000_000

[keystore]
busy_timeout = 30                        # seconds to wait for other writers

[networks]
keep = false                             # compile all networks anew at each start
```
"""

from anonymix_plugin.configuration._reading import configuration_file, load_configuration
from anonymix_plugin.configuration._values import Configuration, OwnFile

__all__ = ["Configuration", "OwnFile", "configuration_file", "load_configuration"]
