"""How OpenVINO is loaded and runs the plug-in's networks: one place, for what all of them share."""

from anonymix_plugin.inference._compiling import Content, Network, Recipe, compiled, opened
from anonymix_plugin.inference._runtime import runtime

__all__ = ["Content", "Network", "Recipe", "compiled", "opened", "runtime"]
