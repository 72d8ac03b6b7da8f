"""The gateway: in front of any stack, in any language, nothing of it changed. docs/gateway.md tells the whole.

Example:
    >>> from anonymix_adapters.gateway import Callers, Gateway, Proxy, load_profile
    >>> proxy = Proxy(load_profile("compreface"), "http://127.0.0.1:8000", mixer)  # doctest: +SKIP
    >>> app = Gateway(proxy, Callers(None)).app  # doctest: +SKIP
"""

from anonymix_adapters.gateway.app import Callers, Gateway, Limits
from anonymix_adapters.gateway.fetching import Fetcher, FetchPolicy
from anonymix_adapters.gateway.problems import ProblemError, problem
from anonymix_adapters.gateway.profile import PROFILES, Profile, load_profile
from anonymix_adapters.gateway.proxy import Proxy, Rights
from anonymix_adapters.gateway.reading import Received
from anonymix_adapters.gateway.tokens import RIGHTS, Token, Tokens

__all__ = [
    "PROFILES",
    "RIGHTS",
    "Callers",
    "FetchPolicy",
    "Fetcher",
    "Gateway",
    "Limits",
    "ProblemError",
    "Profile",
    "Proxy",
    "Received",
    "Rights",
    "Token",
    "Tokens",
    "load_profile",
    "problem",
]
