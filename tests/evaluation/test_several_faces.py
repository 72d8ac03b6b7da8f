"""Where a photo shows several people, mixer, rivals and judges mean the same one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from anonymix_lab.data.keys import SeededKeys
from anonymix_lab.evaluation import assemble
from anonymix_lab.evaluation.assemble import Choice, run_choice
from anonymix_lab.matchers import Panel, load_judges
from anonymix_lab.protections import Blur, KeyName, MixerProtection, Pixelation, Protection
from anonymix_plugin import Anonymixer
from anonymix_plugin.faces import FacePolicy, YuNet
from anonymix_plugin.images import decode_photo
from anonymix_plugin.values import Pixels

ALICE = KeyName("own", "alice")


@pytest.fixture
def folder(shared_data: Path, tmp_path: Path) -> Path:
    """Photos of a bystander, of the person meant, and of both: the bystander larger, at the edge."""
    london = shared_data / "london"
    bystander = Image.open(london / "003_neutral.jpg").convert("RGB").resize((560, 560))
    meant = Image.open(london / "010_neutral.jpg").convert("RGB").resize((400, 400))
    both = Image.new("RGB", (1400, 600), bystander.getpixel((5, 5)))
    both.paste(bystander, (0, 20))
    both.paste(meant, (560, 100))
    for name, picture in (("bystander", bystander), ("meant", meant), ("both", both)):
        picture.save(tmp_path / f"{name}.png")
    return tmp_path


@pytest.fixture
def panel(model: Callable[[str], Path]) -> Panel:
    model("sface")
    return Panel(load_judges(["sface"]), YuNet(model("yunet")), "yunet")


def likeness(panel: Panel, one: Pixels, other: Path, by: Protection) -> float:
    """SFace's cosine of a protected picture with that of another photo."""
    seen = []
    for pixels in (one, by.protect(other, ALICE)):
        vector = panel.look(decode_photo(pixels), ["sface"], "largest")["sface"]
        assert vector is not None
        seen.append(vector / np.linalg.norm(vector))
    return float(seen[0] @ seen[1])


@pytest.mark.parametrize(("faces", "shown"), [("largest", "bystander"), ("central", "meant")])
def test_the_mixer_protects_whom_the_judges_look_at(
    faces: FacePolicy, shown: str, folder: Path, panel: Panel
) -> None:
    """A code of the one differs from a code of the other as two strangers do."""
    other = {"bystander": "meant", "meant": "bystander"}[shown]
    with Anonymixer(SeededKeys(1), faces=faces) as mixer:
        by = MixerProtection(mixer, 1)
        made = by.protect(folder / "both.png", ALICE)
        assert likeness(panel, made, folder / f"{shown}.png", by) > 0.8
        assert likeness(panel, made, folder / f"{other}.png", by) < 0.5
    picture = decode_photo(folder / "both.png")
    seen = panel.look(picture, ["sface"], cast("Any", faces))["sface"]
    alone = panel.look(decode_photo(folder / f"{shown}.png"), ["sface"], "largest")["sface"]
    assert seen is not None
    assert alone is not None
    assert seen @ alone / np.linalg.norm(seen) / np.linalg.norm(alone) > 0.8


@pytest.mark.parametrize("rival", [Blur, Pixelation])
def test_rivals_blur_whom_the_judges_look_at(
    rival: type[Blur] | type[Pixelation], folder: Path, model: Callable[[str], Path]
) -> None:
    detector = YuNet(model("yunet"))
    central, largest = rival(detector, faces="central"), rival(detector)
    meant = central.protect(folder / "meant.png", ALICE).astype(float)
    assert np.abs(central.protect(folder / "both.png", ALICE) - meant).mean() < 12
    assert np.abs(largest.protect(folder / "both.png", ALICE) - meant).mean() > 24
    assert central.fingerprint != largest.fingerprint  # a cache must not mix them up


class _OpenedError(Exception):
    pass


@pytest.mark.parametrize(("protocol", "faces"), [("lfw", "central"), ("folder", "largest")])
def test_on_lfw_the_person_in_the_middle_is_protected(
    protocol: str,
    faces: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: Callable[[str], Path],
) -> None:
    model("sface")
    given: dict[str, Any] = {}

    def opened(*_: object, **options: object) -> None:
        given.update(options)
        raise _OpenedError

    monkeypatch.setattr(assemble, "Anonymixer", opened)
    choice = SimpleNamespace(
        protocol=SimpleNamespace(name=protocol),
        cache=tmp_path,
        detector="yunet",
        judges=["sface"],
        features=None,
        workers=1,
        policy=None,
        key_seed=1,
        engine="auto",
        road="fast",
        mixer_weights=None,
    )
    with pytest.raises(_OpenedError):
        run_choice(cast("Choice", choice), lambda *_: None, lambda _: None)
    assert given["faces"] == faces
