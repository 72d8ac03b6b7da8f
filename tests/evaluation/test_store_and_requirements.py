"""The cache keeps what was finished, and requirements mean what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anonymix_lab.data import Sample
from anonymix_lab.evaluation.requirements import METRICS, parse, read_requirements
from anonymix_lab.matchers import EmbeddingStore, Entry, Extractor, Panel, Request, load_matchers
from anonymix_lab.protections import Blur, KeyName, Pixelation
from anonymix_plugin.errors import UsageError
from anonymix_plugin.faces import YuNet
from anonymix_plugin.values import Pixels


def test_what_was_flushed_is_found_again(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    vector = np.arange(4, dtype=np.float32)
    store.put("a space", "one", Entry(vector, "", 1.5))
    store.put("a space", "two", Entry(None, "no_face"))
    store.put("another", "one", Entry(vector + 1))
    store.flush()
    store.put("a space", "lost", Entry(vector))
    again = EmbeddingStore(tmp_path)
    found = again.get("a space", "one")
    assert found is not None
    assert found.vector is not None
    assert found.vector.tolist() == [0, 1, 2, 3]
    assert found.seconds == 1.5
    refused = again.get("a space", "two")
    assert refused is not None
    assert refused.vector is None
    assert refused.reason == "no_face"
    assert again.get("a space", "lost") is None
    assert again.get("a third", "one") is None
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_damaged_shard_is_counted_and_costs_only_itself(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    for name in ("one", "two"):
        store.put("a space", name, Entry(np.ones(3, np.float32)))
        store.flush()
    shards = sorted(tmp_path.rglob("*.safetensors"))
    shards[0].write_bytes(shards[0].read_bytes()[:-5])
    again = EmbeddingStore(tmp_path)
    assert sum(again.get("a space", name) is not None for name in ("one", "two")) == 1
    assert again.damaged == 1


class Stopping(Pixelation):
    """Pixelation that is interrupted after so many photos."""

    def __init__(self, detector: YuNet, after: int) -> None:
        super().__init__(detector)
        self.left, self.calls = after, 0

    def protect(self, photo: Path, key: KeyName) -> Pixels:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.calls += 1
        return super().protect(photo, key)


def requests(portraits: Path, count: int) -> list[Request]:
    paths = sorted(portraits.glob("*.jpg"))[:count]
    return [Request(Sample(path, path.name[:3], sha256=path.name), KeyName("own", path.name[:3])) for path in paths]


@pytest.fixture
def panel(model: Callable[[str], Path]) -> Panel:
    model("sface")
    return Panel(load_matchers(["sface"]), YuNet(model("yunet")), "yunet")


def test_an_interrupted_run_goes_on_and_draws_nothing_twice(portraits: Path, tmp_path: Path, panel: Panel) -> None:
    wanted = requests(portraits, 6)
    detector = panel.detector
    assert isinstance(detector, YuNet)
    first = Stopping(detector, 3)
    with pytest.raises(KeyboardInterrupt):
        Extractor(panel, EmbeddingStore(tmp_path), workers=1).table(wanted, first, "first")
    second = Stopping(detector, -1)
    table = Extractor(panel, EmbeddingStore(tmp_path), workers=2).table(wanted, second, "second")
    assert first.calls + second.calls == 6
    fresh = Extractor(panel, EmbeddingStore(tmp_path / "fresh"), workers=2).table(wanted, Stopping(detector, -1), "")
    assert np.array_equal(table.vectors["sface"], fresh.vectors["sface"], equal_nan=True)
    third = Stopping(detector, 0)
    Extractor(panel, EmbeddingStore(tmp_path)).table(wanted, third, "all known")


def test_photos_that_fail_are_told_apart(portraits: Path, tmp_path: Path, panel: Panel) -> None:
    good = requests(portraits, 1)[0]
    broken, empty = tmp_path / "broken.jpg", tmp_path / "empty.png"
    broken.write_bytes(b"no image")
    from PIL import Image

    Image.new("RGB", (200, 200), "grey").save(empty)
    plain = [Request(Sample(path, "x", sha256=path.name)) for path in (good.sample.photo, broken, empty)]
    table = Extractor(panel, EmbeddingStore(tmp_path / "cache")).table(plain, None, "photos")
    assert table.reasons["sface"].tolist() == ["", "unreadable_image", "no_face"]
    assert table.failures() == {"unreadable_image": 1, "no_face": 1}
    assert table.found("sface").tolist() == [True, False, False]


def test_without_a_key_all_keys_share_one_picture(portraits: Path, tmp_path: Path, panel: Panel) -> None:
    request = requests(portraits, 1)[0]
    other = Request(request.sample, KeyName("elsewhere", "somebody", 2))
    extractor = Extractor(panel, EmbeddingStore(tmp_path))
    extractor.table([request, other], Blur(panel.detector), "blur")
    assert extractor.made == {"blur": 1}


def test_subjects_share_a_key_only_where_everybody_does() -> None:
    assert KeyName("everybody 1", "a").canonical() == KeyName("everybody 1", "b").canonical()
    assert KeyName("own", "a").canonical() != KeyName("own", "b").canonical()
    assert KeyName("own", "a").canonical() != KeyName("own", "a", 2).canonical()


@pytest.mark.parametrize(
    ("text", "metric", "matcher", "at_most", "limit"),
    [
        ("eer<=.02", "eer", "", True, 0.02),
        ("psr@facenet >= 99.5%", "psr", "facenet", False, 0.995),
        ("d-sys@arcface-mbf<=0.1", "d-sys", "arcface-mbf", True, 0.1),
    ],
)
def test_requirements_are_read(text: str, metric: str, matcher: str, at_most: bool, limit: float) -> None:
    rule = parse(text)
    assert (rule.metric, rule.matcher, rule.at_most) == (metric, matcher, at_most)
    assert rule.limit == pytest.approx(limit)


@pytest.mark.parametrize("text", ["eer<.02", "eer", "speed<=1", "eer<=2", "eer<=200%", "eer=<.02", "<=.02"])
def test_what_is_no_requirement_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


def test_every_metric_can_be_required() -> None:
    for metric in METRICS:
        assert parse(f"{metric}<=.5").metric == metric


def test_requirements_stand_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('[require]\neer = "<=.02"\n"psr@facenet" = ">=99%"\n')
    assert [rule.metric for rule in read_requirements(path)] == ["eer", "psr"]
    for text, message in (("", "no table"), ("[require]\neer = 0.02\n", "is a text"), ("[", "can't be read")):
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            read_requirements(path)
