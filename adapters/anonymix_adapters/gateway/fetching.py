"""Photos behind addresses: fetched by an explicit policy, or not at all."""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import httpx2

from anonymix_adapters._http import Transport, trusting, within
from anonymix_adapters.gateway.problems import ProblemError, refused
from anonymix_plugin.errors import UsageError

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOST: Final = re.compile(r"(?P<name>[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(:(?P<port>\d{1,5}))?")
_EMBEDDING: Final = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96", "2001::/32")))
"""Addresses of version 6 that lead to one of version 4 which they hold."""


@dataclass(frozen=True)
class FetchPolicy:
    """Which addresses are followed. All must be https, and each redirect is held to the same.

    Attributes:
        hosts: Names of hosts, with `:port` where it is not 443. Others are refused; without any, all are.
        networks: Networks that a host may resolve to besides the public internet.
        ca: Issuers of the hosts' certificates, PEM; None for the system's.
        max_bytes: Size of a photo's file.
        seconds: For the whole fetch.
        redirects: How many are followed.

    Raises:
        UsageError: A host or a number is not valid.
    """

    hosts: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    ca: Path | None = None
    max_bytes: int = 12 * 1024 * 1024
    seconds: float = 10.0
    redirects: int = 3

    def __post_init__(self) -> None:
        for host in self.hosts:
            if not _HOST.fullmatch(host):
                raise UsageError(
                    "this is no name of a host", where=host, fix="e.g. photos.example or photos.example:8443"
                )
        if self.max_bytes < 1 or self.seconds <= 0 or self.redirects < 0:
            raise UsageError("a limit of fetching is not positive", where="fetch")

    @classmethod
    def of(cls, hosts: Iterable[str], networks: Iterable[str] = (), **how: Any) -> FetchPolicy:
        """A policy by texts.

        Raises:
            UsageError: A text is not valid.
        """
        try:
            known = tuple(ipaddress.ip_network(each) for each in networks)
        except ValueError:
            raise UsageError("this is no network", where="--fetch-network", fix="e.g. 10.2.0.0/16") from None
        return cls(tuple(host.lower() for host in hosts), known, **how)


class Fetcher:
    """Fetches photos by a policy. Safe to use from many threads.

    Args:
        policy: Which addresses.

    Raises:
        UsageError: The issuers' certificates can't be read.
    """

    def __init__(self, policy: FetchPolicy) -> None:
        self.policy = policy
        self._transport = Transport(
            trusting(policy.ca), keep=0
        )  # a connection that stays open would be of an older look-up

    def __call__(self, address: str) -> bytes:
        """The file behind an address, not looked at.

        Raises:
            ProblemError: The policy refuses it, or it can't be fetched. The address is in no message.
        """
        end = time.monotonic() + self.policy.seconds
        with within(self.policy.seconds):
            for _ in range(self.policy.redirects + 1):
                url = self._allowed(address)
                found = self._asked(url, end)
                if isinstance(found, bytes):
                    return found
                try:
                    address = str(url.join(found))
                except httpx2.InvalidURL:
                    break
        raise _failed("it redirects too often, or to nowhere")

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def _allowed(self, address: str) -> httpx2.URL:
        if not self.policy.hosts:
            raise refused(
                "addresses of photos are not followed; nothing was sent",
                fix="send the photo itself; --fetch-host lets the gateway fetch from hosts that you name",
                code="fetch_refused",
            )
        try:
            url = httpx2.URL(address)
        except httpx2.InvalidURL:
            raise refused("this is no address of a photo; nothing was sent", code="fetch_refused") from None
        host = url.raw_host.decode("ascii").lower()
        host = f"[{host}]" if ":" in host else host
        named = host if url.port in {None, 443} else f"{host}:{url.port}"
        if url.scheme != "https" or url.userinfo or named not in self.policy.hosts:
            raise refused(
                "the policy does not allow this address; nothing was sent",
                fix="send the photo itself; addresses are https, of hosts that --fetch-host names",
                code="fetch_refused",
            )
        return url

    def _asked(self, url: httpx2.URL, end: float) -> bytes | str:
        """The file, or the address that a redirect names."""
        host, port = url.raw_host.decode("ascii"), url.port or 443
        for address in self._addresses(host, port):
            left = end - time.monotonic()
            # The connection goes to the very address that was looked at; the name counts for TLS and the server.
            request = httpx2.Request(
                "GET",
                url.copy_with(host=address, fragment=None),
                headers={
                    "host": url.netloc.decode("ascii"),
                    "accept": "image/*",
                    "accept-encoding": "identity",
                    "user-agent": "anonymix-gateway",
                },
                extensions={"timeout": httpx2.Timeout(max(left, 0.001)).as_dict(), "sni_hostname": host},
            )
            try:
                return self._read(self._transport.handle_request(request))
            except httpx2.ConnectError:
                continue
            except (httpx2.HTTPError, httpx2.StreamError) as error:
                raise _failed(type(error).__name__) from None
        raise _failed("no connection")

    def _addresses(self, host: str, port: int) -> list[str]:
        """Where a host is, all of it allowed."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise _failed("the host is not known") from None
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        if not addresses or not all(self._reachable(ipaddress.ip_address(each)) for each in addresses):
            raise refused(
                "the host is in a network that the policy does not allow; nothing was sent",
                fix="--fetch-network allows a network that is not public",
                code="fetch_refused",
            )
        return addresses

    def _reachable(self, address: Address) -> bool:
        if isinstance(address, ipaddress.IPv6Address):
            inner = address.ipv4_mapped or address.sixtofour
            if inner is not None:
                return self._reachable(inner)
        if any(address in network for network in self.policy.networks):
            return True
        odd = address.is_multicast or address.is_reserved or any(address in network for network in _EMBEDDING)
        return address.is_global and not odd

    def _read(self, response: httpx2.Response) -> bytes | str:
        try:
            if response.status_code in {301, 302, 303, 307, 308}:
                return response.headers.get("location", "")
            if response.status_code != 200:
                raise _failed(f"status {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise _failed("its encoding is not understood")
            body = bytearray()
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > self.policy.max_bytes:
                    raise _failed(f"it has more than {self.policy.max_bytes} bytes")
            return bytes(body)
        finally:
            response.close()


def _failed(why: str) -> ProblemError:
    return ProblemError(
        status=422,
        what=f"the photo behind the address can't be fetched ({why}); nothing was sent",
        fix="send the photo itself",
        code="fetch",
    )
