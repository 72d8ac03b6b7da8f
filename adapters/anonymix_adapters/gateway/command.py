"""`anonymix gateway`: the gateway as a command, and its tokens."""

from __future__ import annotations

import os
import signal
import socket
import tomllib
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from anonymix_plugin.cli.options import DescriptorOption, KeystoreOption
from anonymix_plugin.errors import ConfigurationError, UsageError, naming_extras

if TYPE_CHECKING:
    from anonymix_adapters.interceptor import ScopeRule

app = typer.Typer(help="Stand in front of a recogniser's API: a client changes its address, and nothing else.")
tokens_app = typer.Typer(no_args_is_help=True, help="Make, list and revoke the tokens of callers.")
app.add_typer(tokens_app, name="tokens")

_ENV: Final = "ANONYMIX_GATEWAY_"
_COLLECTION: Final = "{collection}"


class Keys(StrEnum):
    """Whose keys are used."""

    GALLERY = "gallery"
    OWN = "own"


class WhoCalls(StrEnum):
    """Who may use the proxy."""

    TOKENS = "tokens"
    ANYONE = "anyone"


class Right(StrEnum):
    """What a token is good for."""

    PROBE = "probe"
    ENROL = "enrol"
    NAME = "name"
    ADMINISTER = "administer"
    AUDIT = "audit"


def _from_file(context: typer.Context, file: Path | None) -> Path | None:
    """Take options from a TOML file; those of the environment and the command line count before them."""
    if file is None:
        return None
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"can't be read: {type(error).__name__}", where=str(file)) from None
    known = {str(each.name) for each in context.command.params}
    given = {name.replace("-", "_"): value for name, value in content.items()}
    unknown = sorted(given.keys() - known)
    if unknown:
        options = "known options: " + ", ".join(sorted(known))
        raise ConfigurationError("there is no such option", where=f"{file} {unknown[0]}", fix=options)
    context.default_map = {**(context.default_map or {}), **given}
    return file


TokensOption = Annotated[
    Path | None,
    typer.Option("--tokens", envvar=f"{_ENV}TOKENS", metavar="FILE", help="File of the tokens.", show_default=False),
]


@app.callback(invoke_without_command=True)
def gateway(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            envvar=f"{_ENV}CONFIG",
            metavar="FILE",
            is_eager=True,
            callback=_from_file,
            help="TOML file with any of these options.",
        ),
    ] = None,
    upstream: Annotated[
        str, typer.Option(envvar=f"{_ENV}UPSTREAM", metavar="URL", help="Address of the recogniser's API.")
    ] = "",
    profile: Annotated[
        str,
        typer.Option(
            envvar=f"{_ENV}PROFILE",
            metavar="NAME|FILE",
            help="compreface, facepp, luxand, deepface-api, or a file.",
        ),
    ] = "compreface",
    keys: Annotated[
        Keys, typer.Option(envvar=f"{_ENV}KEYS", help="One gallery key for 1:N search, or a key each.")
    ] = Keys.GALLERY,
    scope: Annotated[
        str,
        typer.Option(envvar=f"{_ENV}SCOPE", help="Scope of the keys; {collection} stands for the API's collection."),
    ] = "default",
    collection: Annotated[
        str,
        typer.Option(envvar=f"{_ENV}COLLECTION", help="The collection in records, where the API names none."),
    ] = "default",
    host: Annotated[str, typer.Option(envvar=f"{_ENV}HOST", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar=f"{_ENV}PORT", min=1, max=65535, help="Where to listen.")] = 8081,
    tls_certificate: Annotated[
        Path | None, typer.Option(envvar=f"{_ENV}TLS_CERTIFICATE", metavar="FILE", help="Certificates, PEM.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(envvar=f"{_ENV}TLS_KEY", metavar="FILE", help="Private key, PEM.")
    ] = None,
    client_ca: Annotated[
        Path | None,
        typer.Option(envvar=f"{_ENV}CLIENT_CA", metavar="FILE", help="Ask clients for certificates of these issuers."),
    ] = None,
    insecure_http: Annotated[
        bool, typer.Option("--insecure-http", help="Listen beyond this machine without TLS.")
    ] = False,
    insecure_upstream: Annotated[
        bool, typer.Option("--insecure-upstream", help="Send to another machine over plain http.")
    ] = False,
    upstream_ca: Annotated[
        Path | None,
        typer.Option(envvar=f"{_ENV}UPSTREAM_CA", metavar="FILE", help="Issuers of the API's certificate, PEM."),
    ] = None,
    upstream_secret: Annotated[
        list[str] | None,
        typer.Option(
            "--upstream-secret",
            metavar="NAME=VARIABLE",
            help="A credential of the API, from an environment variable; callers show tokens in its place.",
        ),
    ] = None,
    fetch_host: Annotated[
        list[str] | None,
        typer.Option(
            "--fetch-host",
            envvar=f"{_ENV}FETCH_HOST",
            metavar="HOST[:PORT]",
            help="Fetch photos by address from this host; without it addresses are refused.",
        ),
    ] = None,
    fetch_network: Annotated[
        list[str] | None,
        typer.Option(
            "--fetch-network",
            envvar=f"{_ENV}FETCH_NETWORK",
            metavar="CIDR",
            help="A network that is not public, in which such hosts may be.",
        ),
    ] = None,
    fetch_ca: Annotated[
        Path | None,
        typer.Option(envvar=f"{_ENV}FETCH_CA", metavar="FILE", help="Issuers of such hosts' certificates, PEM."),
    ] = None,
    callers: Annotated[
        WhoCalls | None,
        typer.Option(
            envvar=f"{_ENV}CALLERS",
            help="Who may use the proxy; on this machine and without --upstream-secret anyone by default, else tokens.",
        ),
    ] = None,
    tokens: TokensOption = None,
    drill_photos: Annotated[
        Path | None,
        typer.Option(
            envvar=f"{_ENV}DRILL_PHOTOS", metavar="DIR", help="Photos, two a person, for breach drills on the page."
        ),
    ] = None,
    metrics_port: Annotated[
        int,
        typer.Option(envvar=f"{_ENV}METRICS_PORT", min=0, max=65535, help="Figures on this machine; 0 for none."),
    ] = 0,
    telemetry: Annotated[
        bool,
        typer.Option(
            "--telemetry",
            envvar=f"{_ENV}TELEMETRY",
            help="Send traces and figures by OpenTelemetry, where its own variables say (extra telemetry).",
        ),
    ] = False,
    max_body: Annotated[int, typer.Option(envvar=f"{_ENV}MAX_BODY", min=1, help="Bytes of a request.")] = 12_582_912,
    threads: Annotated[int, typer.Option(envvar=f"{_ENV}THREADS", min=1, help="Requests at once.")] = 4,
    waiting: Annotated[
        int,
        typer.Option(envvar=f"{_ENV}WAITING", min=0, help="Requests that may wait; more are answered with 503."),
    ] = 16,
    rate: Annotated[
        float,
        typer.Option(envvar=f"{_ENV}RATE", min=0, help="Requests a second and caller; 0 for any number."),
    ] = 0.0,
    timeout: Annotated[
        float, typer.Option(envvar=f"{_ENV}TIMEOUT", min=0.1, help="Seconds to wait for the API.")
    ] = 10.0,
    workers: Annotated[
        int,
        typer.Option(envvar=f"{_ENV}WORKERS", min=1, max=256, help="Processes, each with a mixer and --threads."),
    ] = 1,
    at_once: Annotated[
        int,
        typer.Option(
            envvar=f"{_ENV}AT_ONCE", min=1, help="Faces that a process draws at once; each has its share of the cores."
        ),
    ] = 1,
    keystore: KeystoreOption = None,
    passphrase_fd: DescriptorOption = None,
) -> None:
    """Stand in front of a recogniser's API.

    Every photo of a request becomes a cancelable face before a byte goes up. Requests that are not understood
    are refused. Without --upstream only the HTTP API /v1 is served.
    """
    if context.invoked_subcommand is not None:
        return
    del config
    from anonymix_adapters.gateway import metrics
    from anonymix_adapters.gateway.serving import LOCAL, Listening, listen, serve

    listening = Listening(host, port, tls_certificate, tls_key, client_ca, insecure_http)
    with_tokens = callers is WhoCalls.TOKENS
    if callers is None:  # with the API's own credential in the gateway, whoever reaches it could use the API
        with_tokens = not listening.local or bool(upstream_secret)
    listening.check(tokens=with_tokens)
    with naming_extras():
        from starlette.routing import Mount

        from anonymix_adapters.gateway.api import Api
        from anonymix_adapters.gateway.app import Callers, Gateway, Limits
        from anonymix_adapters.gateway.fetching import FetchPolicy
        from anonymix_adapters.gateway.page import Page
        from anonymix_adapters.gateway.profile import load_profile
        from anonymix_adapters.gateway.proxy import Proxy, check_upstream
        from anonymix_adapters.gateway.recent import CountingMixer
        from anonymix_adapters.gateway.shared import Shared
        from anonymix_adapters.gateway.telemetry import Telemetry
        from anonymix_adapters.gateway.tokens import Tokens
        from anonymix_plugin.anonymixer import Anonymixer
    from anonymix_keystore import Keystore
    from anonymix_plugin.cli.keys import open_keys
    from anonymix_plugin.unlocking import unlock_references_without_asking

    known, secrets = load_profile(profile), _secrets(upstream_secret or [])
    if upstream:
        check_upstream(upstream, insecure_http=insecure_upstream)
    rule = _scope_rule(scope)
    _check(drill_photos, metrics_port)
    fetched = FetchPolicy.of(fetch_host or (), fetch_network or (), ca=fetch_ca, max_bytes=max_body)
    kept = Tokens(_tokens_file(tokens))
    limits = Limits(max_body, threads=threads, waiting=waiting, rate=rate)
    listener, number = listen(listening), 0
    if workers > 1:
        number, passphrase_fd = _one_of(workers, listening.grace, listener, keystore, passphrase_fd, metrics_port)
    with open_keys(keystore, passphrase_fd) as store, Anonymixer(store, at_once=at_once) as mixer:
        if isinstance(store, Keystore):
            store.references.enabled(scope.replace(_COLLECTION, "any"))  # a name that can't be one is told now
            unlock_references_without_asking(store)
        counting = CountingMixer(mixer)
        proxy = None
        if upstream:
            proxy = Proxy(
                known,
                upstream,
                counting,
                keys=keys.value,
                scope=rule,
                collection=collection,
                timeout=timeout,
                insecure_http=insecure_upstream,
                ca=upstream_ca,
                secrets=secrets,
                fetch=fetched,
            )
        made = Gateway(
            proxy,
            Callers(kept if with_tokens else None),
            limits,
            api_callers=Callers(kept),
            hosts=LOCAL if listening.local and not with_tokens else None,
            telemetry=Telemetry.of_environment() if telemetry else None,
            shared=Shared(kept.path.with_name("gateway-shared.db")),
            more=lambda it: [
                Mount("/v1", Api(it, counting).app()),
                *Page(
                    it,
                    mixer,
                    scope=scope,
                    secure=tls_certificate is not None,
                    photos=drill_photos,
                ).routes(),
            ],
        )
        counting.count = made.metrics.recent.faces
        if metrics_port and workers == 1:
            metrics.start(metrics_port, made.metrics)
        serve(made, listening, listener, tell=number == 0)


def _one_of(
    workers: int,
    grace: int,
    listener: socket.socket,
    keystore: Path | None,
    passphrase_fd: int | None,
    metrics_port: int,
) -> tuple[int, int | None]:
    """Become one of several workers; returns which, and the descriptor that its passphrase is read from.

    One process more serves the figures of all, and never returns.
    """
    from anonymix_adapters.gateway import metrics
    from anonymix_adapters.gateway.prefork import fork_workers
    from anonymix_plugin.cli.keys import passphrase_of

    passphrase = passphrase_of(keystore, passphrase_fd)
    metrics.share()
    number = fork_workers(workers + bool(metrics_port), grace, listener)
    if number == workers:
        listener.close()
        metrics.start(metrics_port, metrics.Metrics())
        signal.pause()
    if passphrase is None:
        return number, passphrase_fd
    reading, writing = os.pipe()
    os.write(writing, passphrase + b"\n")
    os.close(writing)
    return number, reading


def _check(photos: Path | None, metrics_port: int) -> None:
    """See that what is needed later is there, before anything is loaded or forked."""
    from anonymix_adapters.gateway import metrics

    if photos is not None and not photos.is_dir():
        raise UsageError("there is no such folder", where="--drill-photos", fix="name one that holds photos")
    metrics.check(metrics_port)


def _scope_rule(scope: str) -> ScopeRule:
    """The scope of keys, or how it goes by the API's collection.

    Raises:
        UsageError: Something else than {collection} stands in braces: all collections would share one scope.
    """
    if {"{", "}"} & set(scope.replace(_COLLECTION, "")):
        fix = "write {collection} for the API's collection"
        raise UsageError("a word in braces stands for nothing", where=f"--scope {scope}", fix=fix)
    return (lambda name: scope.replace(_COLLECTION, name)) if _COLLECTION in scope else scope


def _secrets(given: list[str]) -> dict[str, str]:
    found = {}
    for item in given:
        name, equals, variable = item.partition("=")
        if not equals or not os.environ.get(variable):
            raise UsageError(
                "the variable of an upstream's credential is not set",
                where=f"--upstream-secret {name}",
                fix="give NAME=VARIABLE, and set the variable",
            )
        found[name] = os.environ[variable]
    return found


def _tokens_file(given: Path | None) -> Path:
    from anonymix_plugin.cli.keys import default_keystore

    return given or default_keystore().with_name("gateway-tokens.json")


@tokens_app.command("create")
def create(
    right: Annotated[list[Right], typer.Option("--right", help="What it is good for; give it again for more.")],
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    scope: Annotated[list[str] | None, typer.Option(help="For these scopes alone.")] = None,
    days: Annotated[float | None, typer.Option(min=0, max=36_500, help="How long it is good.")] = None,
    tokens: TokensOption = None,
) -> None:
    """Make a token, and print it this once."""
    from anonymix_adapters.gateway.tokens import Tokens

    if scope and Right.AUDIT in right:
        fix = "leave --scope or the right audit out"
        raise UsageError("the audit trail is of all scopes, and so must a token for it be", where="--scope", fix=fix)
    secret, made = Tokens(_tokens_file(tokens)).create(
        [each.value for each in right],
        note=note,
        scopes=scope or (),
        lifetime=None if days is None else timedelta(days=days),
    )
    typer.echo(secret)
    typer.echo(f"token {made.id}: keep it now, it is not shown again", err=True)


@tokens_app.command("list")
def list_(tokens: TokensOption = None) -> None:
    """List tokens: ids and rights, never the tokens."""
    from anonymix_adapters.gateway.tokens import Tokens
    from anonymix_plugin.cli.report import printable

    found = Tokens(_tokens_file(tokens)).all()
    if not found:
        typer.echo("There are no tokens.", err=True)
    for each in found:
        scopes = ",".join(each.scopes) or "all scopes"
        ended = " ended" if each.ended else ""
        told = f"{each.id}  {','.join(each.rights)}  {scopes}  {each.created}{ended}  {each.note}"
        typer.echo(printable(told))


@tokens_app.command("revoke")
def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="Its id, as `list` shows it.")],
    tokens: TokensOption = None,
) -> None:
    """Revoke a token; running gateways honour it at the next request."""
    from anonymix_adapters.gateway.tokens import Tokens

    Tokens(_tokens_file(tokens)).revoke(token)
