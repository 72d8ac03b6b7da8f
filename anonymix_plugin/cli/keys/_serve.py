"""`anonymix keys serve`: the keys of one store for the mixers of other machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anonymix_plugin.cli.keys._app import DescriptorOption, app
from anonymix_plugin.cli.keys._opening import open_keystore
from anonymix_plugin.errors import UsageError, naming_extras
from anonymix_plugin.unlocking import unlock_references_without_asking

_ENV = "ANONYMIX_SERVICE_"


@app.command("serve")
def serve(
    keystore: Annotated[
        Path | None,
        typer.Argument(metavar="[STORE]", envvar="ANONYMIX_KEYSTORE", help="The keystore's file.", show_default=False),
    ] = None,
    *,
    certificate: Annotated[
        Path, typer.Option(envvar=f"{_ENV}CERTIFICATE", metavar="FILE", help="The service's certificate, PEM.")
    ],
    key_file: Annotated[Path, typer.Option("--key", envvar=f"{_ENV}KEY", metavar="FILE", help="Its private key, PEM.")],
    clients: Annotated[
        list[Path],
        typer.Option(
            envvar=f"{_ENV}CLIENTS", metavar="FILE", help="CA that issues clients' certificates, PEM; again for more."
        ),
    ],
    roles: Annotated[
        Path, typer.Option(envvar=f"{_ENV}ROLES", metavar="FILE", help="TOML file of what each client may do.")
    ],
    listen: Annotated[
        str, typer.Option(envvar=f"{_ENV}LISTEN", metavar="HOST:PORT", help="Where to listen.")
    ] = "127.0.0.1:8443",
    metrics_port: Annotated[
        int,
        typer.Option(envvar=f"{_ENV}METRICS_PORT", min=0, max=65535, help="Figures on this machine; 0 for none."),
    ] = 0,
    threads: Annotated[int, typer.Option(envvar=f"{_ENV}THREADS", min=1, max=64, help="Requests at once.")] = 4,
    waiting: Annotated[
        int,
        typer.Option(envvar=f"{_ENV}WAITING", min=0, max=10_000, help="Requests that may wait; more get 503."),
    ] = 64,
    passphrase_fd: DescriptorOption = None,
) -> None:
    """Give the mixers of other machines the keys of this store, over mutual TLS.

    Each client shows a certificate, and the file of roles says what it may do. docs/key-service.md tells how to
    set it up. Runs until SIGTERM or Ctrl-C.
    """
    host, port = _place(listen)
    with naming_extras("service"):
        from anonymix_plugin.keyservice.roles import Roles
        from anonymix_plugin.keyservice.service import KeyService
        from anonymix_plugin.keyservice.serving import Listening, serve

    listening = Listening(host, port, certificate, key_file, tuple(clients), metrics_port)
    listening.context()
    known = Roles(roles)
    with open_keystore(keystore, passphrase_fd, cache_size=0) as store:
        unlock_references_without_asking(store)
        service = KeyService(store, known, threads=threads, waiting=waiting)
        serve(service, listening)


def _place(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port[:6]) < 65_536:
        raise UsageError("it is an address and a port", where="--listen", fix="give HOST:PORT, such as 127.0.0.1:8443")
    return host.removeprefix("[").removesuffix("]"), int(port)
