"""Distillation of the small generator: the head learns to draw at 256 px what MobileStyleGAN draws.

Everything is drawn in the loop and nothing is stored: codes as the mixer makes them, the large generator's
picture at 512 px, averaged to 256, and, on its way, the features that the small head starts from. So each
step costs one pass of the large generator, in half precision on a GPU, and a training pass of the head.

    L =  p mean |small - large|  +  d mean |their Haar details|  +  e mean (1 - cos of embeddings)
       + a critic's hinge loss in the last part of the run,

embeddings being those of the recognisers that the mixer was built on, of crops cut out of both pictures at
the same places. The critic (Isola et al. 2017, arXiv 1611.07004, with spectral norms) looks at patches. Its
gradient at the last layer is held to a share of the pixels' (Esser et al. 2021, arXiv 2012.09841): it may
sharpen, and not invent.

What is written is an average of the weights over the last steps, whenever the held-out faces look more like
the large generator's to the recognisers than before. A run has a number of minutes, or of steps where it is
to be repeated exactly; interrupted, it goes on from its last state.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that torch users expect
from torch.nn.utils.parametrizations import spectral_norm

from anonymix_lab.training.checkpoint import load_state, one_cycle, save_state
from anonymix_lab.training.examples import GROUPS, Landmarks, spread
from anonymix_lab.training.pairs import to_pixels
from anonymix_lab.training.teachers import TEACHERS
from anonymix_lab.training.whole import crop_grids, cut_finely
from anonymix_plugin.files import whole_file
from anonymix_plugin.generator import MobileStyleGan
from anonymix_plugin.generator.small import SmallHead
from anonymix_plugin.generator.small_weights import FIRST_STYLE
from anonymix_plugin.mixer.weights import MixerWeights
from anonymix_plugin.values import Floats

FILE = "small.safetensors"

_SHOWN = 8


@dataclass(frozen=True)
class SmallRecipe:
    """How the small generator's head is trained.

    Attributes:
        batch: Faces a step.
        learning_rate: Peak of the one-cycle schedule of AdamW.
        pixels: p of the loss.
        details: d of the loss.
        embeddings: e of the loss.
        critic: Share of the pixels' gradient at the last layer that the critic's may have.
        critic_rate: The critic's learning rate.
        critic_from: Share of the run after which the critic joins in.
        averaged: Share of the run over which weights are averaged, exponentially.
        landmarks: Standard deviation of the landmarks that crops are cut at, in sides of the picture.
        held: Faces that are held out.
        seed: Seed of codes and weights.
    """

    batch: int = 64
    learning_rate: float = 2e-3
    pixels: float = 1.0
    details: float = 1.0
    embeddings: float = 0.15
    critic: float = 0.15
    critic_rate: float = 4e-4
    critic_from: float = 0.4
    averaged: float = 0.02
    landmarks: float = 0.012
    held: int = 64
    seed: int = 41


def train_small(
    reference: MobileStyleGan,
    weights: MixerWeights,
    landmarks: Landmarks,
    recognisers: Mapping[str, nn.Module],
    folder: Path,
    *,
    device: str,
    minutes: float,
    batch: int,
    progress: Callable[[str], None],
    seed: int,
    steps: int | None = None,
    held: int = 64,
    every: float = 30.0,
) -> Path:
    """Train the head and write it.

    Args:
        reference: The large generator.
        weights: Its mixer's weights, which say what codes there are.
        landmarks: Where drawn faces have their landmarks.
        recognisers: Name -> frozen module; `TEACHERS` are learned from, others ("facenet") only judge.
        folder: Where small.safetensors goes, held-out.png (the large generator's faces above, the small one's
            below) and, until the run is done, its state.
        device: Where all of it runs; half precision is used on "cuda" only.
        minutes: How long, earlier parts of an interrupted run included.
        batch: Faces a step.
        progress: Called with a line of figures whenever held-out faces were looked at.
        seed: Seed of codes and weights.
        steps: In place of `minutes`: how many steps, which makes a run repeatable.
        held: Faces that are held out.
        every: Seconds between two looks at held-out faces.

    Returns:
        The safetensors file: the best weights, with the recipe and their figures as metadata.

    Raises:
        UsageError: The folder holds the state of a run with other settings.
    """
    recipe = SmallRecipe(batch=batch, held=held, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    if device.startswith("cuda"):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    run = _Run(reference, weights, landmarks, recognisers, recipe, torch.device(device))
    length = "" if steps is None else str(steps)
    about = {"recipe": repr(recipe), "generator": reference.weights_hash(), "steps": length}
    output, state = folder / FILE, folder / "small-unfinished.safetensors"
    more: dict[str, torch.Tensor] = {}
    step = load_state(state, run.pupils, run.optimiser, about, more)
    before = float(more["seconds"]) if more else 0.0
    best = float(more["best"]) if more else -math.inf
    began = looked = time.monotonic()

    def share() -> float:
        if steps is not None:
            return step / max(1, steps)
        return (before + time.monotonic() - began) / (60 * minutes)

    while (done := share()) < 1:
        run.step(step, done)
        step += 1
        if time.monotonic() - looked < every and share() < 1:
            continue
        figures = run.matcher()
        score = float(np.mean([figures[name] for name in TEACHERS if name in figures]))
        text = ", ".join(f"{name} {value:.4f}" for name, value in (run.losses() | figures).items())
        seconds = before + time.monotonic() - began
        progress(f"step {step}, {seconds:.0f} s: {text}")
        if score > best:
            best = score
            note = {"recipe": asdict(recipe), "step": step, "held-out": figures}
            with whole_file(output) as draft:
                save_file(
                    run.folded(),
                    draft,
                    {"generator": reference.weights_hash(), "about": json.dumps(note, sort_keys=True)},
                )
        kept = {"seconds": torch.tensor(seconds), "best": torch.tensor(best)}
        save_state(state, run.pupils, run.optimiser, step, about, kept)
        looked = time.monotonic()
    run.show(folder / "held-out.png")
    state.unlink(missing_ok=True)
    return output


class CodeSource:
    """Codes as the mixer makes them, spread wider, many at a time on a device.

    Of the persons three in ten have the coarse layers of somebody else, and three in ten the fine layers of
    another key. Half of the synthetic codes keep what is in the directions that are the person's.
    """

    def __init__(self, reference: MobileStyleGan, weights: MixerWeights, device: torch.device) -> None:
        def tensor(values: Floats) -> torch.Tensor:
            return torch.from_numpy(np.asarray(values, np.float32)).to(device)

        self._reference, self._device, self._weights = reference, device, weights
        self._mapping = deepcopy(reference.mapping).to(device)
        self.centre, self.basis = tensor(weights.centre), tensor(weights.basis)
        self._inverse = tensor(weights.inverse.astype(np.float32))
        span = weights.span
        if span is None:
            span = np.linalg.qr(weights.person[1].astype(np.float64))[0].astype(np.float32)
        self._span = tensor(span)
        self._linear = tensor(weights.person[:GROUPS].reshape(-1, weights.keyed_dims))
        self._removed = None if weights.removed is None else tensor(weights.removed)
        self._scale, self._axes = 0.0, 0
        self._hidden: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()
        self._last: torch.Tensor | None = None
        if weights.bend is not None:
            layers = weights.bend.first, weights.bend.second
            self._scale, self._last = weights.bend.scale, tensor(weights.bend.last)
            self._hidden = tuple((tensor(weight), tensor(bias)) for weight, bias in layers)
            self._axes = len(self._last) // len(weights.person)

    def draw(self, random: np.random.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 23, 512) W+ codes and (N, 2, 512) whitened codes, float32 on the device.

        All that is random comes from numpy on the processor: the codes of a seed are the same on all devices.
        """
        people = self._people(random, count)
        people[:, 0] = self._exchanged(random, people[:, 0], 0.3)
        synthetic = self._synthetic(random, count)[:, None].repeat(1, GROUPS + 1, 1)
        synthetic[:, 0] = self._exchanged(random, synthetic[:, 0], 0.3)
        synthetic[:, -1] = self._exchanged(random, synthetic[:, -1], 0.3)
        codes = torch.cat([people, torch.zeros_like(people[:, :1])], dim=1)
        codes = codes + self._some(random.uniform(0.1, 0.6, (count, GROUPS + 1, 1))) * synthetic
        return spread(self._reference, self.centre + codes @ self.basis.T), codes[:, :GROUPS]

    def _people(self, random: np.random.Generator, count: int) -> torch.Tensor:
        keyed = random.standard_normal((count, self._weights.keyed_dims))
        keyed /= np.linalg.norm(keyed, axis=1, keepdims=True)
        return self._some(random.uniform(0.5, 1.6, (count, 1, 1))) * self.mapped(self._some(keyed))

    def mapped(self, keyed: torch.Tensor) -> torch.Tensor:
        """`IdentityMap` for many codes at once: (N, D) float32 -> (N, 2, 512)."""
        codes = (keyed @ self._linear.T).view(len(keyed), GROUPS, -1)
        if self._last is not None:
            scaled = self._scale * keyed
            added = 0.5 * (self._through(scaled) - self._through(-scaled)) @ self._last.T
            added = added.view(len(keyed), -1, self._axes)[:, :GROUPS]
            codes[:, :, : self._axes] += added
        if self._removed is not None:
            codes = codes - (codes @ self._removed)[..., None] * self._removed
        return codes

    def _through(self, x: torch.Tensor) -> torch.Tensor:
        for weight, bias in self._hidden:
            x = F.silu(F.linear(x, weight, bias))
        return x

    def _synthetic(self, random: np.random.Generator, count: int) -> torch.Tensor:
        noise = self._some(random.standard_normal((count, self._reference.z_dim)))
        with torch.no_grad():
            codes: torch.Tensor = (self._mapping(noise) - self.centre) @ self._inverse.T
        outside = self._some(random.uniform(size=(count, 1)) < 0.5)
        return codes - outside * (codes @ self._span) @ self._span.T

    def _exchanged(self, random: np.random.Generator, rows: torch.Tensor, share: float) -> torch.Tensor:
        """Some rows are their neighbour's."""
        return torch.where(self._some(random.uniform(size=(len(rows), 1)) < share) > 0, rows.roll(1, 0), rows)

    def _some(self, values: object) -> torch.Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)).to(self._device)


class Teacher:
    """The large generator, in half precision on a GPU, drawing a part of a batch at a time."""

    def __init__(self, reference: MobileStyleGan, device: torch.device, together: int = 32) -> None:
        gpu = device.type == "cuda"
        self._type = torch.float16 if gpu else torch.float32
        self._module = deepcopy(reference).to(device, self._type)
        self._together = together if gpu else 1  # what two faces need at once leaves a processor's cache
        self._layout = torch.contiguous_format
        if gpu:
            self._take_the_faster_layout(device)

    def __call__(self, w_plus: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 23, 512) -> what the head takes, (N, 512, 64, 64), and (N, 3, 256, 256), all float32."""
        with torch.no_grad():
            parts = [self._some(some) for some in torch.split(w_plus.to(self._type), self._together)]
        return torch.cat([features for features, _ in parts]), torch.cat([picture for _, picture in parts])

    def _some(self, w_plus: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        middle = self._module.middle(w_plus).contiguous(memory_format=self._layout)
        features = self._module.middle_channels(middle, w_plus)
        picture = self._module.finish(middle, w_plus)
        return features.float(), F.avg_pool2d(picture.float(), 2)

    def _take_the_faster_layout(self, device: torch.device) -> None:
        codes = torch.zeros((self._together, self._module.layers.total, self._module.w_dim), device=device)
        seconds = {}
        for layout in (torch.contiguous_format, torch.channels_last):
            self._lay_out(layout)
            for _ in range(3):  # the first ones choose algorithms
                torch.cuda.synchronize(device)
                began = time.monotonic()
                self(codes)
                torch.cuda.synchronize(device)
                seconds[layout] = time.monotonic() - began
        self._lay_out(min(seconds, key=lambda layout: seconds[layout]))

    def _lay_out(self, layout: torch.memory_format) -> None:
        self._layout = layout
        for parameter in self._module.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=layout)


class _Pupil(nn.Module):
    """The head behind a normalisation of its inputs, which `folded` puts into its weights."""

    mean: torch.Tensor
    std: torch.Tensor
    centre: torch.Tensor
    width: torch.Tensor

    def __init__(self, weights: MixerWeights) -> None:
        super().__init__()
        self.head = SmallHead()
        for number, style in enumerate(self.head.affine):
            nn.init.normal_(style.weight, std=0.1 / math.sqrt(style.in_features))
            nn.init.constant_(style.bias, float(number < len(self.head.affine) - 1))
        self.register_buffer("mean", torch.zeros(1, self.head.enter.in_channels, 1, 1))
        self.register_buffer("std", torch.ones(1, self.head.enter.in_channels, 1, 1))
        self.register_buffer("centre", torch.from_numpy(weights.centre.copy()))
        self.register_buffer("width", torch.from_numpy(np.linalg.norm(weights.basis, axis=1)))

    def forward(self, features: torch.Tensor, w_plus: torch.Tensor) -> torch.Tensor:
        styles = w_plus[:, FIRST_STYLE : FIRST_STYLE + len(self.head.affine)]
        drawn: torch.Tensor = self.head((features - self.mean) / self.std, (styles - self.centre) / self.width)
        return drawn

    def folded(self) -> dict[str, torch.Tensor]:
        """The weights of a head that takes features and styles as they are."""
        plain = {name: value.clone() for name, value in self.head.state_dict().items()}
        plain["enter.weight"] /= self.std
        plain["enter.bias"] -= (plain["enter.weight"] * self.mean).sum(dim=(1, 2, 3))
        for number in range(len(self.head.affine)):
            weight = plain[f"styles.{number}.weight"] / self.width
            plain[f"styles.{number}.weight"] = weight
            plain[f"styles.{number}.bias"] -= weight @ self.centre
        return {name: value.contiguous().cpu() for name, value in plain.items()}


def _critic() -> nn.Sequential:
    """A critic of patches of 70 px: (N, 3, 256, 256) -> (N, 1, 30, 30)."""
    widths = (32, 64, 128)
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
    for before, after, stride in ((32, 64, 2), (64, 128, 2), (128, 128, 1)):
        layers += [spectral_norm(nn.Conv2d(before, after, 4, stride, 1)), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(widths[-1], 1, 4, 1, 1)))


class _Run:
    """All that a run works with."""

    def __init__(
        self,
        reference: MobileStyleGan,
        weights: MixerWeights,
        landmarks: Landmarks,
        recognisers: Mapping[str, nn.Module],
        recipe: SmallRecipe,
        device: torch.device,
    ) -> None:
        self._recipe, self._landmarks = recipe, landmarks
        self._codes = CodeSource(reference, weights, device)
        self._teacher = Teacher(reference, device)
        self._recognisers = {name: module.to(device) for name, module in recognisers.items()}
        torch.manual_seed(recipe.seed)
        pupil = _Pupil(weights)
        self._live, self._mean, self._critic = pupil, deepcopy(pupil).requires_grad_(False), _critic()
        self.pupils = nn.ModuleDict({"live": self._live, "mean": self._mean, "critic": self._critic})
        self.pupils.to(device)
        head, critic = list(self._live.parameters()), list(self._critic.parameters())
        self.optimiser = torch.optim.AdamW(
            [{"params": head, "betas": (0.9, 0.99)}, {"params": critic, "betas": (0.0, 0.99)}],
            recipe.learning_rate,
            weight_decay=1e-4,
        )
        self._losses: dict[str, list[torch.Tensor]] = {}
        held = self._random(0, 1)
        w_plus, codes = self._codes.draw(held, recipe.held)
        self._held = w_plus, *self._teacher(w_plus), self._grids(codes, None)
        self._normalise(self._held[1])

    def step(self, number: int, done: float) -> None:
        """One step of both; `done` is the share of the run that lies behind."""
        recipe = self._recipe
        random = self._random(number, 0)
        w_plus, codes = self._codes.draw(random, recipe.batch)
        features, target = self._teacher(w_plus)
        rate = one_cycle(int(1e6 * done), 1_000_000, warm=0.1)
        self.optimiser.param_groups[0]["lr"] = recipe.learning_rate * rate
        self.optimiser.param_groups[1]["lr"] = recipe.critic_rate
        drawn = self._live(features, w_plus)
        missed = drawn - target
        pixels = recipe.pixels * missed.abs().mean() + recipe.details * _details(missed).abs().mean()
        cosines = self._cosines(drawn, target, self._grids(codes, random), TEACHERS)
        embeddings = torch.stack([1 - values.mean() for values in cosines.values()]).mean()
        loss = pixels + recipe.embeddings * embeddings
        self._note(pixels=pixels, embeddings=embeddings)
        self.optimiser.zero_grad(set_to_none=True)
        if done >= recipe.critic_from:
            loss = loss + self._criticism(drawn, target, pixels)
        loss.backward()
        nn.utils.clip_grad_norm_(self._live.parameters(), 0.5)
        self.optimiser.step()
        self._average(number, done)

    def matcher(self) -> dict[str, float]:
        """How the averaged head draws held-out faces: PSNR, and a cosine for each recogniser."""
        _, _, target, grids = self._held
        drawn = self._draw_held()
        squares = (drawn - target).clamp(-2, 2).square().mean(dim=(1, 2, 3))
        figures = {"psnr": float((10 * torch.log10(4 / squares)).mean())}
        for start in range(0, len(drawn), 16):
            at = slice(start, start + 16)
            with torch.no_grad():
                part = self._cosines(drawn[at], target[at], grids[at], tuple(self._recognisers))
            for name, values in part.items():
                figures[name] = figures.get(name, 0.0) + float(values.sum()) / len(drawn)
        return figures

    def losses(self) -> dict[str, float]:
        """Means of the losses since this was last asked."""
        means = {name: float(torch.stack(values).mean()) for name, values in self._losses.items()}
        self._losses.clear()
        return means

    def folded(self) -> dict[str, torch.Tensor]:
        """The weights of the averaged head."""
        return self._mean.folded()

    def show(self, path: Path) -> None:
        """Write some held-out faces: the large generator's above, the small one's below."""
        rows = [
            np.concatenate([to_pixels(one.cpu(), one.shape[-1]) for one in pictures[:_SHOWN]], axis=1)
            for pictures in (self._held[2], self._draw_held())
        ]
        _, png = cv2.imencode(".png", np.concatenate(rows)[..., ::-1])
        with whole_file(path) as draft:
            draft.write_bytes(png.tobytes())

    def _criticism(self, drawn: torch.Tensor, target: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """The critic's own loss and what it costs the head, as one sum."""
        real = self._critic(target)
        own = F.relu(1 - real).mean() + F.relu(1 + self._critic(drawn.detach())).mean()
        self._critic.requires_grad_(False)
        against = -self._critic(drawn).mean()
        self._critic.requires_grad_(True)
        last = self._live.head.leave.weight
        wanted, given = (torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (pixels, against))
        factor = (self._recipe.critic * wanted / (given + 1e-8)).clamp(max=1.0).detach()
        self._note(critic=own)
        both: torch.Tensor = own + factor * against
        return both

    def _cosines(
        self, drawn: torch.Tensor, target: torch.Tensor, grids: torch.Tensor, names: tuple[str, ...]
    ) -> dict[str, torch.Tensor]:
        """Recogniser -> (N,) cosines between embeddings of the same crop of two pictures."""
        found = {}
        both = [cut_finely(pictures, grids) for pictures in (drawn, target)]
        for name in names:
            if name not in self._recognisers:
                continue
            module = self._recognisers[name]
            size = getattr(module, "input_size", both[0].shape[-1])
            crops = [_resized(crop, size) for crop in both]
            with torch.no_grad():
                wanted = module(crops[1])
            found[name] = F.cosine_similarity(module(crops[0]), wanted)
        return found

    def _grids(self, codes: torch.Tensor, random: np.random.Generator | None) -> torch.Tensor:
        with torch.no_grad():
            places = self._landmarks.guess_with_gradients(codes)
            if random is not None:
                noise = random.normal(0, self._recipe.landmarks, places.shape).astype(np.float32)
                places = places + torch.from_numpy(noise).to(places.device)
            return crop_grids(places)

    def _average(self, number: int, done: float) -> None:
        """Let the averaged weights follow, so that they forget within `averaged` of the run's length."""
        follow = min(1.0, done / number / self._recipe.averaged) if number else 1.0
        with torch.no_grad():
            for mean, live in zip(self._mean.parameters(), self._live.parameters(), strict=True):
                mean.lerp_(live, follow)

    def _normalise(self, features: torch.Tensor) -> None:
        std, mean = torch.std_mean(features, dim=(0, 2, 3), keepdim=True)
        for pupil in (self._live, self._mean):
            pupil.mean.copy_(mean)
            pupil.std.copy_(std + 1e-3)

    def _draw_held(self) -> torch.Tensor:
        w_plus, features, _, _ = self._held
        with torch.no_grad():
            parts = zip(torch.split(features, 16), torch.split(w_plus, 16), strict=True)
            return torch.cat([self._mean(some, codes) for some, codes in parts])

    def _random(self, number: int, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=2 * self._recipe.seed + stream, counter=number << 64))

    def _note(self, **losses: torch.Tensor) -> None:
        for name, value in losses.items():
            self._losses.setdefault(name, []).append(value.detach())


def _resized(crops: torch.Tensor, size: int) -> torch.Tensor:
    return crops if crops.shape[-1] == size else F.interpolate(crops, size=size, mode="bilinear")


def _details(pictures: torch.Tensor) -> torch.Tensor:
    """The three detail bands of a Haar wavelet: (N, C, S, S) -> (N, 3 C, S / 2, S / 2)."""
    a, b = pictures[..., ::2, ::2], pictures[..., ::2, 1::2]
    c, d = pictures[..., 1::2, ::2], pictures[..., 1::2, 1::2]
    return torch.cat([a - b + c - d, a + b - c - d, a - b - c + d], dim=1) / 2
