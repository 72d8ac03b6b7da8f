"""The sample people: always the same, and told apart by recognisers."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from anonymix_lab.demo.people import MOST_PEOPLE, PHOTOS_EACH, sample_people
from anonymix_plugin.errors import UsageError
from anonymix_plugin.generator import LayerGroups
from anonymix_plugin.generator.mobilestylegan import MobileStyleGan


class Recorder:
    """A generator that draws noise and remembers the codes."""

    name = "recorder"
    z_dim = w_dim = 8
    layers: LayerGroups = MobileStyleGan.layers
    sizes = (512,)

    def __init__(self) -> None:
        self.codes: list[torch.Tensor] = []

    def map(self, z: torch.Tensor) -> torch.Tensor:
        return z

    def synthesise(self, w_plus: torch.Tensor, size: int) -> torch.Tensor:
        self.codes.append(w_plus[0])
        return torch.linspace(-1, 1, 3 * size * size).reshape(1, 3, size, size)

    def weights_hash(self) -> str:
        return "0" * 64


def test_photos_of_a_person_share_the_identity_layers_alone() -> None:
    generator = Recorder()
    people = list(sample_people(generator, 2))
    assert [len(person.photos) for person in people] == [PHOTOS_EACH] * 2
    first, second = generator.codes[:PHOTOS_EACH], generator.codes[PHOTOS_EACH:]
    identity = list(generator.layers.identity)
    for code in first[1:]:
        assert torch.equal(code[identity], first[0][identity])
        assert not torch.equal(code[0], first[0][0])
        assert not torch.equal(code[22], first[0][22])
    assert not torch.equal(first[0][identity], second[0][identity])


def test_same_seed_gives_the_same_files_and_another_seed_the_same_people() -> None:
    once, again, other = Recorder(), Recorder(), Recorder()
    a, b = list(sample_people(once, 2)), list(sample_people(again, 2))
    c = list(sample_people(other, 2, seed=1))
    assert [sample.data for person in a for sample in person.photos] == [
        sample.data for person in b for sample in person.photos
    ]
    assert a[0].photos[1].data != c[0].photos[1].data
    assert torch.equal(once.codes[0], other.codes[0])


def test_photos_are_jpeg_files_of_512_px() -> None:
    person = next(iter(sample_people(Recorder(), 2, photos=2)))
    with Image.open(io.BytesIO(person.photos[1].data)) as image:
        assert (image.format, image.size) == ("JPEG", (512, 512))
        assert np.asarray(image).std() > 1


@pytest.mark.parametrize("count", [1, MOST_PEOPLE + 1])
def test_numbers_that_there_are_no_people_for_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match="sample photos of 2 to"):
        sample_people(Recorder(), count)
