"""The page for those who look after a gateway, under /page: rendered here, nothing from elsewhere."""

from anonymix_adapters.gateway.page._page import Page
from anonymix_adapters.gateway.page._preview import PageMixer

__all__ = ["Page", "PageMixer"]
