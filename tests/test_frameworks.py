"""docs/frameworks.md: its code runs as it stands, and each photo goes under the key of the right person."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from anonymix_adapters import SubjectNeededError
from anonymix_keystore import Argon2Cost, Keystore, PassphraseUnlock
from anonymix_plugin import CancelableFace, UsageError

pytestmark = pytest.mark.usefixtures("loaded_once")

pytest.importorskip("fastapi", reason="frameworks are installed for development only")
pytest.importorskip("flask", reason="frameworks are installed for development only")
httpx = pytest.importorskip("httpx")

PAGE = Path(__file__).parents[1] / "docs" / "frameworks.md"
PEOPLE = ("alice", "bob")


@pytest.fixture(scope="module")
def page(
    portraits: Path, model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SimpleNamespace]:
    """The page's names after all of its code has run, and `used`: under whose keys photos went."""
    for name in ("mobilestylegan", "yunet", "arcface-mbf", "sface"):
        model(name)
    folder = tmp_path_factory.mktemp("frameworks")
    cheap = Argon2Cost(memory_kib=8_192, passes=1, lanes=1)
    with Keystore.create(folder / "keystore.db", PassphraseUnlock("swordfish", cost=cheap)):
        pass
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setenv("ANONYMIX_PASSPHRASE", "swordfish")
        code = "\n\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
        exec(compile(code, PAGE.name, "exec", dont_inherit=True), names)  # noqa: S102
        mixer, used, made = names["mixer"], [], {}
        draw = mixer.protect

        def protect(image: Any, *, subject: str, **options: Any) -> CancelableFace:
            used.append(subject)
            name = (subject, image.tobytes())
            if name not in made:
                made[name] = draw(image, subject=subject, **options)
            return made[name]

        patch.setattr(mixer, "protect", protect)
        photos = [(portraits / f"{number:03d}_neutral.jpg").read_bytes() for number in (1, 2)]
        names["own"] = {user: names["enrol"](user, photo) for user, photo in zip(PEOPLE, photos, strict=True)}
        names["photos"] = dict(zip(PEOPLE, photos, strict=True))
        names["used"] = used
        yield SimpleNamespace(**names)
        mixer.close()


@pytest.fixture(autouse=True)
def _used(page: SimpleNamespace) -> None:
    page.used.clear()


def post(app: Any, calls: list[tuple[str, bytes, dict[str, str]]]) -> list[Any]:
    """Post photos to an ASGI application, all at once."""

    async def main() -> list[Any]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://door", timeout=60) as client:
            posts = [client.post(path, content=body, headers=headers) for path, body, headers in calls]
            return list(await asyncio.gather(*posts, return_exceptions=True))

    return asyncio.run(main())


def test_helpers_and_generators_go_by_their_own_person(page: SimpleNamespace) -> None:
    cameras = [page.camera(user, [photo] * 2) for user, photo in page.photos.items()]
    for _ in range(2):
        for camera in cameras:
            user, vector = next(camera)
            assert vector == page.own[user]
        with pytest.raises(SubjectNeededError):
            page.embed(page.photos["alice"])
        with page.signed_in("bob"):
            assert page.embed(page.photos["bob"]) == page.own["bob"]
    assert Counter(page.used) == {"alice": 2, "bob": 4}


@pytest.mark.parametrize("path", ["/named", "/claimed"])
def test_fastapi_endpoints(page: SimpleNamespace, path: str) -> None:
    headers = {"content-type": "application/octet-stream"}
    calls = [(f"{path}/{user}", page.photos[user], headers) for user in PEOPLE * 2]
    for (where, _, _), answer in zip(calls, post(page.api, calls), strict=True):
        assert answer.json() == page.own[where.rpartition("/")[2]]
    assert Counter(page.used) == {"alice": 2, "bob": 2}


@pytest.mark.parametrize("path", ["/stream", "/stream-async"])
def test_fastapi_streams(page: SimpleNamespace, path: str) -> None:
    headers = {"content-type": "application/octet-stream"}
    answers = post(page.api, [(f"{path}/{user}", page.photos[user], headers) for user in PEOPLE])
    for user, answer in zip(PEOPLE, answers, strict=True):
        assert answer.text.split() == [f"{page.own[user][0]:.3f}"] * 3
    assert Counter(page.used) == {"alice": 3, "bob": 3}


def test_fastapi_s_sync_dependency_is_refused_and_reaches_nobody(page: SimpleNamespace) -> None:
    from fastapi import Depends

    def claim(user: str) -> Iterator[None]:
        with page.mixer.subject(user):
            yield

    @page.api.get("/sync/{user}", dependencies=[Depends(claim)])
    def asked(user: str) -> Any:
        return page.embed(page.photos["alice"])

    @page.api.get("/anybody")
    def anybody() -> Any:
        return page.embed(page.photos["alice"])

    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(page.api), base_url="http://door") as client:
            for path in ("/sync/alice", "/anybody") * 3:
                with pytest.raises(SubjectNeededError):
                    await client.get(path)

    asyncio.run(main())
    assert page.used == []


def test_starlette_middleware(page: SimpleNamespace) -> None:
    answers = post(page.site, [("/", page.photos[user], {"x-user": user}) for user in PEOPLE])
    assert [answer.json() for answer in answers] == [page.own[user] for user in PEOPLE]
    (refused,) = post(page.site, [("/", page.photos["alice"], {})])
    assert isinstance(refused, SubjectNeededError)
    assert Counter(page.used) == {"alice": 1, "bob": 1}


def test_flask_requests(page: SimpleNamespace) -> None:
    page.web.testing = True
    client = page.web.test_client()
    for user in PEOPLE * 2:
        answer = client.post("/", data=page.photos[user], headers={"X-User": user})
        assert answer.get_json() == page.own[user]
        with pytest.raises(SubjectNeededError):
            client.post("/", data=page.photos[user])
        with pytest.raises(Exception, match="empty"):  # a request that falls over leaves nothing behind
            client.post("/", data=b"", headers={"X-User": user})
    assert Counter(page.used) == {"alice": 2, "bob": 2}


def test_tasks_and_workers(page: SimpleNamespace) -> None:
    async def main() -> list[Any]:
        both = await asyncio.gather(*(page.both(user, *[page.photos[user]] * 2) for user in PEOPLE))
        assert both == [[page.own[user]] * 2 for user in PEOPLE]
        jobs, results = asyncio.Queue[Any](), []
        with page.mixer.subject("alice"):
            late = asyncio.create_task(page.worker(jobs, results))
            await asyncio.sleep(0)
        for user in PEOPLE:
            jobs.put_nowait((user, page.photos[user]))
        await jobs.join()
        late.cancel()
        return results

    assert asyncio.run(main()) == [(user, page.own[user]) for user in PEOPLE]


def test_a_worker_started_inside_a_block_is_refused_other_people(page: SimpleNamespace) -> None:
    async def main() -> None:
        jobs, results = asyncio.Queue[Any](), []
        with page.mixer.subject("alice"):
            late = asyncio.create_task(page.worker(jobs, results))
            jobs.put_nowait(("bob", page.photos["bob"]))
            with pytest.raises(UsageError, match="two different people"):
                await late

    asyncio.run(main())
    assert page.used == []


def test_pools_and_queues(page: SimpleNamespace, tmp_path: Path) -> None:
    for user in PEOPLE:
        assert page.in_a_pool(user, [page.photos[user]] * 2) == [page.own[user]] * 2
        path = tmp_path / f"{user}.jpg"
        path.write_bytes(page.photos[user])
        assert page.job(json.dumps({"user": user, "path": str(path)})) == page.own[user]
    assert Counter(page.used) == {"alice": 3, "bob": 3}
