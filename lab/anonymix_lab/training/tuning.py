"""Tuning of the identity map through the generator and the recognisers.

The linear map that regression finds says which way faces change with what recognisers see, but not how far
they get: two codes of one person at a cosine of .9 came out as faces at .7. Here the map itself learns, from
the embeddings of the faces that it makes (drawn by the `Student`).

A step takes keyed codes of some people, a few each: uniform on the unit sphere of the dimensions into which a
key turns people, and as far from each other as photos of a person are. All of them share one key, which is
the hardest case. A step on a GPU takes several keys, with people of their own; whoever is under another key
is somebody else, as people are once their keys were renewed. Every pair of faces then goes through a logistic
loss with fixed thresholds,

    L = mean over same   softplus(s (t + m - cos))  +  mean over others  softplus(s (cos - t + m)),

for each recogniser, so that same and other people fall on the sides of t where recognisers expect them. To it
comes 1 - r, r being Pearson's correlation between the cosines of faces and those of the codes that they were
made from: faces should be as alike as codes, and not merely on the right side.

How far a person may move a style vector is bounded, which keeps faces where the generator draws well; and
crops are shifted, turned and tinted a little, so that the map learns faces and not the pixels of two
recognisers.

A map that was tuned before can be tuned on. It can be cut down, first, to the directions that recognisers see
best (`visible`): the fewer there are, the further apart people can be in each.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that torch users expect

from anonymix_lab.training.checkpoint import load_state, one_cycle, save_state
from anonymix_lab.training.examples import GROUPS, SEEN_LAYERS, FeatureGenerator
from anonymix_plugin.errors import UsageError
from anonymix_plugin.generator import Generator
from anonymix_plugin.mixer.identity_map import Bend
from anonymix_plugin.mixer.weights import MixerWeights
from anonymix_plugin.values import Floats

Matrix = npt.NDArray[np.float64]

THRESHOLDS: Mapping[str, float] = {"arcface-mbf": 0.32, "sface": 0.42, "faceres": 0.62}
"""Where tuning wants the border between people: a little above the thresholds of FMR .1 % on photos."""

_SCALE = 8.0  # brings the numbers of a code of length 1 to order 1
_BORDER = 0.38  # for recognisers that have no threshold of their own
_PROBES = 800  # faces that tell which directions recognisers see


@dataclass(frozen=True)
class TuningRecipe:
    """How the identity map is tuned.

    Attributes:
        steps: Steps of Adam.
        people: People a step.
        photos: Faces of each of them.
        linear_rate: Peak learning rate of the linear map.
        bend_rate: Peak learning rate of the network.
        hidden: Width of the network; one that is narrower is widened by units that start as nothing.
        axes: Whitened coordinates of each group that the network moves, likewise.
        slope: s of the loss.
        thresholds: Recogniser -> t of the loss, a cosine.
        margin: m of the loss.
        faithful: Weight of 1 - r in the loss.
        similarity: Mean cosine of two codes of a person, and its standard deviation.
        street: Share of a key's people whose codes are those of photos (`StreetCodes`), 0..1; the others' are
            drawn by `similarity`.
        hard: Share of the pairs, the hardest ones, that make half of the loss; 1 leaves all pairs alike.
        layers: How many of the generator's style inputs a person moves.
        dims: Dimensions into which one key turns people: as many as the subspace has. None means all of the
            keyed ones.
        keys: Least and greatest truncation of the keys' synthetic codes.
        keys_a_step: How many keys a step takes, each with `people` people of its own.
        stretch: Least and greatest factor on what the map says, one for each step (`MixingPolicy.person`).
        length: How far a person may move a style vector before that costs.
        length_weight: What it costs then.
        seed: Seed of codes, keys and network.
    """

    steps: int = 700
    people: int = 6
    photos: int = 3
    linear_rate: float = 0.004
    bend_rate: float = 0.001
    hidden: int = 256
    axes: int = 96
    slope: float = 12.0
    thresholds: Mapping[str, float] = field(default_factory=lambda: dict(THRESHOLDS))
    margin: float = 0.07
    faithful: float = 2.0
    similarity: tuple[float, float] = (0.80, 0.11)
    street: float = 0.0
    hard: float = 1.0
    layers: int = SEEN_LAYERS
    dims: int | None = 32
    keys: tuple[float, float] = (0.2, 0.6)
    keys_a_step: int = 1
    stretch: tuple[float, float] = (1.0, 1.0)
    length: float = 8.0
    length_weight: float = 0.1
    seed: int = 3


def whole_recipe(*, steps: int, people: int, dims: int, seed: int) -> TuningRecipe:
    """How the map is tuned on through whole faces: more of them a step, two keys, a wider network.

    The person is drawn as far out as the mixer draws it (`MixingPolicy.person` is 1.3), and less far.
    """
    return TuningRecipe(
        steps=steps,
        people=people,
        keys_a_step=2,
        stretch=(1.0, 1.3),
        length=9.5,
        hidden=512,
        axes=160,
        dims=dims,
        seed=seed,
    )


@dataclass(frozen=True, eq=False)
class StreetCodes:
    """Codes of photos: how much photos of one person really differ.

    Attributes:
        codes: (N, dims) float32 of length 1, in the mixer's subspace.
        who: (N,) int64, who is on each.
    """

    codes: Floats
    who: npt.NDArray[np.int64]

    def several(self, random: np.random.Generator, people: int, photos: int) -> Floats:
        """Draw people and as many photos of each, (people * photos, dims) float32, person by person.

        Raises:
            UsageError: Fewer people have so many photos.
        """
        names, counts = np.unique(self.who, return_counts=True)
        enough = names[counts >= photos]
        if len(enough) < people:
            raise UsageError(
                f"{len(enough)} people have {photos} photos, too few for a step of {people}",
                where="the codes of photos",
                fix="lower the share of them, or the people a step",
            )
        rows = [
            random.choice(np.flatnonzero(self.who == person), photos, replace=False)
            for person in random.choice(enough, people, replace=False)
        ]
        return self.codes[np.concatenate(rows)] if rows else self.codes[:0]


class CodeReader(Protocol):
    """What tuning learns through: `Student`, or `whole.WholeReader` on a GPU."""

    basis: torch.Tensor

    def __call__(
        self, codes: torch.Tensor, random: np.random.Generator | None = None, fine: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """(N, 2, 512) whitened codes -> recogniser -> (N, dim) float32, rows of length 1."""
        ...


class TunableMap(nn.Module):
    """The map of `mixer.identity_map` with gradients.

    Args:
        weights: The map to start from.
        recipe: Size of the network where the weights have none, or a smaller one. What is new starts as
            nothing: its last layer is zero.
    """

    def __init__(self, weights: MixerWeights, recipe: TuningRecipe) -> None:
        super().__init__()
        self.linear = nn.Parameter(torch.from_numpy(weights.person[:GROUPS].copy()))
        if weights.bend is None:
            self.scale = _SCALE
            self.first = nn.Linear(weights.keyed_dims, recipe.hidden)
            self.second = nn.Linear(recipe.hidden, recipe.hidden)
            self.last = nn.Linear(recipe.hidden, GROUPS * recipe.axes, bias=False)
            nn.init.zeros_(self.last.weight)
        else:
            bend = _widened(weights.bend, recipe.hidden, recipe.axes)
            self.scale = bend.scale
            self.first, self.second = _layer(*bend.first), _layer(*bend.second)
            self.last = _layer(bend.last)
        nothing = np.zeros(weights.person.shape[1], np.float32)
        removed = nothing if weights.removed is None else weights.removed.copy()
        self.register_buffer("removed", torch.from_numpy(removed), persistent=False)
        self.removed: torch.Tensor

    def forward(self, keyed: torch.Tensor) -> torch.Tensor:
        """(N, D) float32 keyed codes of length 1 -> (N, 2, 512) float32 whitened coordinates."""
        codes = torch.einsum("gij,nj->ngi", self.linear, keyed)
        odd = 0.5 * (self._through(self.scale * keyed) - self._through(-self.scale * keyed))
        added = self.last(odd).view(len(keyed), GROUPS, -1)
        codes = codes + F.pad(added, (0, codes.shape[-1] - added.shape[-1]))
        return codes - (codes @ self.removed)[..., None] * self.removed

    def _through(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(self.second(F.silu(self.first(x))))

    def tuned(self, weights: MixerWeights, span: torch.Tensor, layers: int = SEEN_LAYERS) -> MixerWeights:
        """The weights with this map, which moves the first `layers` style inputs, in place of their own."""

        def array(values: torch.Tensor) -> Floats:
            return values.detach().cpu().numpy().copy()

        first, second = ((array(layer.weight), array(layer.bias)) for layer in (self.first, self.second))
        return replace(
            weights,
            person=array(self.linear),
            bend=Bend(self.scale, first, second, array(self.last.weight)),
            span=array(span),
            identity_end=layers,
        )


def _layer(weight: Floats, bias: Floats | None = None) -> nn.Linear:
    """A layer that starts from arrays."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        if bias is not None:
            layer.bias.copy_(torch.from_numpy(bias))
    return layer


def _widened(bend: Bend, hidden: int, axes: int) -> Bend:
    """The same network with more units, whose last weights are zero, and more axes."""
    had, more = len(bend.first[0]), max(0, hidden - len(bend.first[0]))
    reach = len(bend.last) // GROUPS
    if not more and axes <= reach:
        return bend
    first, second = nn.Linear(bend.first[0].shape[1], had + more), nn.Linear(had + more, had + more)
    last = np.zeros((GROUPS, max(axes, reach), had + more), np.float32)
    with torch.no_grad():
        second.weight[:had, had:] = 0
        for layer, (weight, bias) in ((first, bend.first), (second, bend.second)):
            layer.weight[:had, : weight.shape[1]] = torch.from_numpy(weight)
            layer.bias[:had] = torch.from_numpy(bias)
    last[:, :reach, :had] = bend.last.reshape(GROUPS, reach, had)
    (one, one_bias), (two, two_bias) = (
        (layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in (first, second)
    )
    return Bend(bend.scale, (one, one_bias), (two, two_bias), last.reshape(-1, had + more))


@dataclass(frozen=True)
class TuningStep:
    """What one step showed, before it moved the map.

    Attributes:
        step: Its number, from 0.
        loss: The whole loss.
        length: Mean length of the person's part of the style vectors.
        same: Recogniser -> mean and standard deviation of the cosines of faces of one person.
        others: The same for faces of two people.
    """

    step: int
    loss: float
    length: float
    same: dict[str, tuple[float, float]]
    others: dict[str, tuple[float, float]]

    def separation(self, name: str) -> float:
        """D' of a recogniser: the distance of the means over the root of the summed variances."""
        (same, one), (others, two) = self.same[name], self.others[name]
        return (same - others) / max(1e-9, float(np.hypot(one, two)))


def tune(
    reader: CodeReader,
    generator: FeatureGenerator | Generator,
    weights: MixerWeights,
    recipe: TuningRecipe,
    folder: Path,
    progress: Callable[[TuningStep], None],
    *,
    save_every: int = 25,
    street: StreetCodes | None = None,
    look: Callable[[int, Callable[[], MixerWeights]], None] | None = None,
) -> MixerWeights:
    """Tune the map, going on where an earlier run stopped.

    Args:
        reader: From codes to embeddings.
        generator: Maps the keys' Gaussian codes.
        weights: The linear map to start from.
        recipe: How.
        folder: Where the state of the run (tuning.safetensors) and its log (tuning.jsonl) go.
        progress: Called after each step.
        save_every: Steps between states.
        street: Codes of photos, where the recipe wants some.
        look: Called after each step with its number and what makes weights of the map as it is.

    Returns:
        The tuned weights.

    Raises:
        UsageError: The folder holds the state of a run with other settings, or the recipe wants codes of
            photos where there are none.
    """
    if recipe.street and street is None:
        raise UsageError("the recipe wants codes of photos", where="street", fix="give some, or a share of 0")
    torch.manual_seed(recipe.seed)
    device = reader.basis.device
    network = TunableMap(weights, recipe).to(device)
    span = torch.linalg.qr(torch.from_numpy(weights.person[1]))[0]
    optimiser = torch.optim.Adam(
        [
            {"params": [network.linear], "peak": recipe.linear_rate},
            {
                "params": [*network.first.parameters(), *network.second.parameters()],
                "peak": recipe.bend_rate,
            },
            {"params": [*network.last.parameters()], "peak": recipe.bend_rate},
        ]
    )
    about = {"recipe": json.dumps(asdict(recipe), sort_keys=True), "generator": weights.generator_hash}
    state = folder / "tuning.safetensors"
    done = load_state(state, network, optimiser, about)
    pairs = _Pairs.of(recipe, device)
    with (folder / "tuning.jsonl").open("a", encoding="utf-8") as log:
        for step in range(done, recipe.steps):
            began = time.monotonic()
            random = np.random.Generator(np.random.Philox(key=recipe.seed, counter=step << 64))
            keyed, synthetic = _batch(generator, weights, span, recipe, random, device, street)
            moved = network(keyed)
            if recipe.stretch[0] < recipe.stretch[1]:
                moved = moved * random.uniform(*recipe.stretch)
            entry, loss = _rate(reader, keyed, moved, synthetic, pairs, recipe, step, random)
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * one_cycle(step, recipe.steps, warm=0.05)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            log.write(json.dumps({**asdict(entry), "seconds": round(time.monotonic() - began, 2)}) + "\n")
            if (step + 1) % save_every == 0 or step + 1 == recipe.steps:
                log.flush()
                save_state(state, network, optimiser, step + 1, about)
            progress(entry)
            if look is not None:
                look(step + 1, lambda: network.tuned(weights, span, recipe.layers))
    return network.tuned(weights, span, recipe.layers)


def visible(
    reader: CodeReader,
    generator: FeatureGenerator | Generator,
    weights: MixerWeights,
    dims: int,
    progress: Callable[[int, int], None],
    *,
    seed: int = 17,
) -> MixerWeights:
    """Cut a map down to the keyed directions that recognisers see best.

    Faces of random codes are drawn under one key and embedded; a ridge regression of the embeddings on the
    codes says how far each direction moves what recognisers see, and its left singular vectors which
    directions move it furthest.

    Args:
        reader: From codes to embeddings.
        generator: Maps the key's Gaussian code.
        weights: The map.
        dims: How many directions stay, at most as many as there are.
        progress: Called with faces drawn and their number.
        seed: Of codes and key.
    """
    random = np.random.Generator(np.random.Philox(seed))
    codes = _unit(random.standard_normal((_PROBES, weights.keyed_dims)))
    network = TunableMap(weights, TuningRecipe())
    span = torch.linalg.qr(torch.from_numpy(weights.person[1]))[0]
    seen, device = [], reader.basis.device
    with torch.inference_mode():
        key = _key_part(generator, weights, span, random, 0.3, device)
        for start in range(0, _PROBES, 20):
            moved = network(torch.from_numpy(codes[start : start + 20].astype(np.float32))) + key
            seen.append(torch.cat(list(reader(moved.to(device)).values()), dim=1).cpu().numpy())
            progress(min(start + 20, _PROBES), _PROBES)
    answers = np.concatenate(seen).astype(np.float64)
    answers -= answers.mean(axis=0)
    gram = codes.T @ codes + 0.4 * np.eye(weights.keyed_dims)
    effect = np.linalg.solve(gram, codes.T @ answers)
    kept = np.linalg.svd(effect, full_matrices=False)[0][:, :dims].astype(np.float32)
    bend = weights.bend
    if bend is not None:
        bend = replace(bend, first=(bend.first[0] @ kept, bend.first[1]))
    return replace(weights, person=weights.person @ kept, bend=bend)


def _keyed_codes(
    random: np.random.Generator, recipe: TuningRecipe, keyed: int, street: StreetCodes | None = None
) -> Floats:
    """Codes of a batch in the dimensions into which one key turns people, (N, keyed) float32."""
    dims = keyed if recipe.dims is None else min(recipe.dims, keyed)
    real = round(recipe.street * recipe.people)
    codes = some_codes(random, recipe.people - real, recipe.photos, dims, recipe.similarity)
    if street is not None and real:
        codes = np.concatenate([codes, street.several(random, real, recipe.photos)])
    turn = np.linalg.qr(random.standard_normal((keyed, dims)))[0]
    return np.asarray(codes @ turn.T, np.float32)


def some_codes(
    random: np.random.Generator, people: int, photos: int, dims: int, similarity: tuple[float, float]
) -> npt.NDArray[np.float32]:
    """Keyed codes of some people, (people * photos, dims) float32 of length 1, person by person.

    The codes of a person have a cosine of c with each other, which is normal over people with mean and
    standard deviation `similarity`, between .3 and .97: the person times the root of c, and directions of their own
    that are orthogonal to the person and, in high dimensions, nearly so to each other.
    """
    centre = _unit(random.standard_normal((people, 1, dims)))
    cosine = np.clip(random.normal(*similarity, (people, 1, 1)), 0.3, 0.97)
    aside = random.standard_normal((people, photos, dims))
    aside = _unit(aside - (aside * centre).sum(axis=-1, keepdims=True) * centre)
    codes = np.sqrt(cosine) * centre + np.sqrt(1 - cosine) * aside
    return codes.reshape(-1, dims).astype(np.float32)


def _unit(rows: Matrix) -> Matrix:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Which pairs of a batch, (N, N) bool above the diagonal, are what."""

    same: torch.Tensor  # of one person, under one key
    others: torch.Tensor  # of two people, or under two keys
    within: torch.Tensor  # under one key

    @classmethod
    def of(cls, recipe: TuningRecipe, device: torch.device) -> _Pairs:
        who = torch.repeat_interleave(torch.arange(recipe.keys_a_step * recipe.people), recipe.photos)
        key = who // recipe.people
        above = torch.triu(torch.ones(len(who), len(who)), 1).bool()
        same = who[:, None] == who[None]
        pairs = same & above, ~same & above, (key[:, None] == key[None]) & above
        return cls(*(pair.to(device) for pair in pairs))


def _batch(
    generator: FeatureGenerator | Generator,
    weights: MixerWeights,
    span: torch.Tensor,
    recipe: TuningRecipe,
    random: np.random.Generator,
    device: torch.device,
    street: StreetCodes | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keyed codes (N, D) of a step, and the part of each that is its key's, (N or 1, 512) whitened."""
    keyed, synthetic = [], []
    for _ in range(recipe.keys_a_step):
        keyed.append(torch.from_numpy(_keyed_codes(random, recipe, weights.keyed_dims, street)))
        synthetic.append(_key_part(generator, weights, span, random, random.uniform(*recipe.keys), device))
    keys = torch.stack(synthetic)
    if len(synthetic) > 1:
        keys = torch.repeat_interleave(keys, recipe.people * recipe.photos, dim=0)
    return torch.cat(keyed).to(device), keys.to(device)


def _key_part(
    generator: FeatureGenerator | Generator,
    weights: MixerWeights,
    span: torch.Tensor,
    random: np.random.Generator,
    truncation: float,
    device: torch.device,
) -> torch.Tensor:
    """A key's synthetic code outside the person's span, (512,) whitened, on the CPU."""
    noise = torch.from_numpy(random.standard_normal((1, 512), np.float32))
    with torch.no_grad():
        style = generator.map(noise.to(device))[0].cpu().numpy() - weights.centre
        synthetic = truncation * torch.from_numpy((weights.inverse @ style).astype(np.float32))
        return synthetic - span @ (span.T @ synthetic)


def _rate(
    reader: CodeReader,
    keyed: torch.Tensor,
    moved: torch.Tensor,
    synthetic: torch.Tensor,
    pairs: _Pairs,
    recipe: TuningRecipe,
    step: int,
    random: np.random.Generator,
) -> tuple[TuningStep, torch.Tensor]:
    """The loss of a batch, and what the log keeps of it."""
    losses, near, far = [], {}, {}
    wanted = (keyed @ keyed.T)[pairs.within]
    for name, embeddings in reader(moved + synthetic[:, None], random, synthetic).items():
        cosines = embeddings @ embeddings.T
        border = recipe.thresholds.get(name, _BORDER)
        same, others = cosines[pairs.same], cosines[pairs.others]
        losses.append(
            _hard_mean(F.softplus(recipe.slope * (border + recipe.margin - same)), recipe.hard)
            + _hard_mean(F.softplus(recipe.slope * (others - border + recipe.margin)), recipe.hard)
            + recipe.faithful * (1 - torch.corrcoef(torch.stack([cosines[pairs.within], wanted]))[0, 1])
        )
        near[name], far[name] = _summary(same), _summary(others)
    length = (moved @ reader.basis.T).norm(dim=-1)
    loss = torch.stack(losses).sum() + recipe.length_weight * F.relu(length - recipe.length).square().mean()
    entry = TuningStep(step, float(loss.detach()), float(length.detach().mean()), near, far)
    return entry, loss


def _hard_mean(losses: torch.Tensor, share: float) -> torch.Tensor:
    """The mean of all losses and of the share of the greatest ones, half each; of all alone at a share of 1."""
    if share >= 1:
        return losses.mean()
    hardest = torch.topk(losses, max(1, round(share * len(losses)))).values
    return 0.5 * (losses.mean() + hardest.mean())


def _summary(cosines: torch.Tensor) -> tuple[float, float]:
    values = cosines.detach()
    return float(values.mean()), float(values.std())
