"""The small generator's head learns what the large one draws; a run can stop and goes on as if it had not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toys import TEMPLATE, BandRecogniser

from anonymix_lab.training.examples import Landmarks
from anonymix_lab.training.small import CodeSource, train_small
from anonymix_plugin.errors import UsageError
from anonymix_plugin.generator import MobileStyleGan, load_reference_generator
from anonymix_plugin.generator.small import SmallHead
from anonymix_plugin.generator.small_weights import FIRST_STYLE
from anonymix_plugin.mixer.identity_map import IdentityMap
from anonymix_plugin.mixer.weights import load_mixer_weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def reference() -> MobileStyleGan:
    return load_reference_generator()


def run(reference: MobileStyleGan, folder: Path, stop: int | None = None, seed: int = 41) -> list[str]:
    """Three steps, the critic's among them; raise at look number `stop`, as an interruption does."""
    lines: list[str] = []

    def watch(line: str) -> None:
        lines.append(line)
        if len(lines) == stop:
            raise KeyboardInterrupt

    landmarks = Landmarks(np.zeros((4, 2, 512), np.float32), np.repeat(TEMPLATE[None], 4, axis=0))
    train_small(
        reference,
        load_mixer_weights(),
        landmarks,
        {"sface": BandRecogniser()},
        folder,
        device="cpu",
        minutes=1,
        batch=1,
        progress=watch,
        seed=seed,
        steps=3,
        held=1,
        every=0,
    )
    return lines


def test_an_interrupted_run_ends_at_the_same_weights(reference: MobileStyleGan, tmp_path: Path) -> None:
    whole = run(reference, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(reference, tmp_path / "halves", stop=2)
    with pytest.raises(UsageError, match="other settings"):
        run(reference, tmp_path / "halves", seed=42)
    again = run(reference, tmp_path / "halves")
    assert [line.split(",")[0] for line in again] == ["step 2", "step 3"]  # the state is of one step
    assert whole[-1].split(": ")[1] == again[-1].split(": ")[1]
    assert (tmp_path / "whole" / "held-out.png").stat().st_size > 10_000
    kept, other = (load_file(tmp_path / name / "small.safetensors") for name in ("whole", "halves"))
    SmallHead().load_state_dict(kept)
    for name, value in kept.items():
        torch.testing.assert_close(value, other[name], atol=1e-5, rtol=1e-4)


def test_the_large_generator_is_left_and_entered_again_in_the_middle(reference: MobileStyleGan) -> None:
    codes, _ = CodeSource(reference, load_mixer_weights(), CPU).draw(np.random.default_rng(3), 1)
    with torch.no_grad():
        middle = reference.middle(codes)
        assert torch.equal(reference.finish(middle, codes), reference.synthesise(codes, 512))
        assert reference.middle_channels(middle, codes).shape == (1, 512, 64, 64)
    assert FIRST_STYLE == 1 + 3 * 4  # of the block at 128 px


def test_codes_are_mapped_as_the_mixer_maps_them(reference: MobileStyleGan) -> None:
    weights = load_mixer_weights()
    keyed = np.random.default_rng(1).standard_normal((3, weights.keyed_dims))
    keyed /= np.linalg.norm(keyed, axis=1, keepdims=True)
    slow = IdentityMap(weights.person[:2], weights.bend, weights.removed)
    fast = CodeSource(reference, weights, CPU).mapped(torch.from_numpy(keyed.astype(np.float32)))
    np.testing.assert_allclose(fast, np.stack([slow(code) for code in keyed]), atol=2e-5)
