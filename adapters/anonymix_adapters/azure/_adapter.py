"""Where the photos of Azure's clients are taken over."""

from __future__ import annotations

from typing import Any, Final

from anonymix_adapters._rest_interceptor import CloudInterceptor
from anonymix_adapters._rest_pictures import Fetch
from anonymix_adapters._wire import not_ours
from anonymix_adapters.azure._routes import LIMIT, Routes
from anonymix_adapters.errors import AdapterError, DoubleProtectionError
from anonymix_adapters.interceptor import FaceMixer, KeyUse, ScopeRule
from anonymix_adapters.sdk import Sdk
from anonymix_adapters.wrapping import Hooks, hook, interceptor_of, unwrap, wrap

__all__ = ["LIMIT", "NAME", "SDKS", "install", "interceptor_of", "policy", "protect", "unprotect"]

NAME: Final = "azure"
SDKS: Final = (
    Sdk("azure.ai.vision.face", ("azure-ai-vision-face",), "azure", ">=1.0.0b2,<1.0.0b3"),
    Sdk("azure.core", ("azure-core",), "azure", ">=1.30,<2"),
)


def protect(
    target: Any,
    mixer: FaceMixer,
    *,
    keys: KeyUse = "own",
    scope: ScopeRule = "default",
    fetch: Fetch | None = None,
) -> Any:
    """Put the mixer in front of a Face client, blocking or async, in place.

    Face calls name nobody: a person is a UUID of Azure's, and `user_data` is free text. Each method of the
    client takes `subject=` besides its own options; else the subject is that of `with mixer.subject(...)`, or
    the gallery key is used.

    Args:
        target: A FaceClient or FaceAdministrationClient. Each client is protected by itself.
        mixer: Makes the cancelable faces.
        keys: "own" or "gallery"; see `Interceptor`.
        scope: Scope of the keys, or a function of "largepersongroups/ID" or "largefacelists/ID". Detection
            names none; for it the function is called with "".
        fetch: Fetches photos that are given by address. Without it they are refused.

    Returns:
        The same client.

    Raises:
        SdkMissingError, SdkVersionError: An SDK is not there, or not as tested.
        AdapterError: It is no Face client.
        DoubleProtectionError: It is protected already, in another way.
    """
    interceptor = CloudInterceptor(mixer, NAME, keys=keys, scope=scope, fetch=fetch)
    return install(target, interceptor, fetch=fetch)


def unprotect(target: Any) -> Any:
    """See `Adapter.unprotect`."""
    return unwrap(target)


def policy(
    mixer: FaceMixer,
    *,
    keys: KeyUse = "own",
    scope: ScopeRule = "default",
    fetch: Fetch | None = None,
    asynchronous: bool = False,
) -> Any:
    """The mixer as a policy, for those who make their client themselves.

        FaceClient(endpoint, credential, per_call_policies=[policy(mixer)])

    Arguments are those of `protect`; `asynchronous` is for the clients of `azure.ai.vision.face.aio`. It must
    stand in `per_call_policies`: among `per_retry_policies` a retry would find its own cancelable face.
    """
    _check()
    from anonymix_adapters.azure._policy import AsyncMixingPolicy, MixingPolicy

    routes = Routes(CloudInterceptor(mixer, NAME, keys=keys, scope=scope), fetch)
    return AsyncMixingPolicy(routes) if asynchronous else MixingPolicy(routes)


def install(target: Any, interceptor: CloudInterceptor, *, fetch: Fetch | None = None) -> Any:
    """`protect`, with an interceptor that is there already."""
    _check()
    from azure.core.pipeline import AsyncPipeline

    from anonymix_adapters.azure._policy import AsyncMixingPolicy, MixingPolicy, look_last, look_no_longer

    pipeline = getattr(getattr(target, "_client", None), "_pipeline", None)
    policies = getattr(pipeline, "_impl_policies", None)
    if not type(target).__module__.startswith("azure.ai.vision.face") or not policies:
        raise AdapterError(
            "this is no client of azure-ai-vision-face",
            where=NAME,
            fix="use FaceClient or FaceAdministrationClient",
        )
    if any(isinstance(each, MixingPolicy | AsyncMixingPolicy) for each in policies) and interceptor_of(target) is None:
        raise DoubleProtectionError("this client was made with the mixer's policy", where=NAME)
    routes = Routes(interceptor, fetch)
    mixing = AsyncMixingPolicy(routes) if isinstance(pipeline, AsyncPipeline) else MixingPolicy(routes)

    def put_in(client: Any) -> Hooks:
        owner: Any = client._client
        kind: Any = type(pipeline)

        def run(request: Any, **options: Any) -> Any:
            if not _in_chain(policies, mixing):
                raise not_ours(interceptor, "the mixer's policy was taken out of the pipeline")
            return kind.run(pipeline, request, **options)

        mixing.next = policies[0]
        policies.insert(0, mixing)
        look_last(mixing)

        def undo() -> None:
            look_no_longer(mixing)
            if mixing in policies:
                policies.remove(mixing)

        inner = {name: part for name, part in vars(client).items() if getattr(part, "_client", None) is owner}
        places = [
            (client, {"_client": owner, **inner}),
            (owner, {"_pipeline": pipeline}),
            (pipeline, {"run": run, "_impl_policies": policies}),
            *((part, {"_client": owner}) for part in inner.values()),
        ]
        held = [hook(place, hooks) for place, hooks in places]
        return Hooks.together([*held, Hooks(undo, lambda: _in_chain(policies, mixing))])

    return wrap(target, interceptor, put_in)


def _in_chain(policies: list[Any], mixing: Any) -> bool:
    """Whether a pipeline's first policy leads to the mixer's."""
    each = policies[0] if policies else None
    while each is not None and each is not mixing:
        each = getattr(each, "next", None)
    return each is mixing


def _check() -> None:
    for sdk in SDKS:
        sdk.check()
