"""A distilled student, as in FaceLinkGen (which lifted the linkage of CanFG from .04 to .825)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from anonymix_lab.evaluation.attacks._regression import learned, ridge
from anonymix_lab.evaluation.attacks._values import Array, Attempt, Material


class Student:
    """A network that is trained to say of a protected face what the recognisers said of the photo.

    It stands on the frozen recognisers: their embeddings of the protected face go in, the embeddings of the
    photo are to come out. The loss is contrastive (InfoNCE, van den Oord et al. 2018) and cosine, half each;
    it starts from the ridge regression, and training stops where a tenth of the attacker's people, held out,
    says so: it is no worse than the regression.

    Args:
        photos: At most so many pairs to learn from.
        epochs: At most so many passes.
        width: Of the hidden layer.
        seed: Of the initial weights and the order of the pairs.
    """

    name = "student"

    def __init__(self, photos: int = 5_000, epochs: int = 60, width: int = 512, seed: int = 1) -> None:
        self._photos, self._epochs, self._width, self._seed = photos, epochs, width, seed

    def run(self, material: Material) -> Iterator[Attempt]:
        """See `Attack.run`."""
        blocks = list(material.targets().values())
        budget = {"epochs": float(self._epochs), "width": float(self._width)}
        yield from learned(
            self.name, material, lambda faces, real: self._learn(faces, real, blocks), self._photos, budget
        )

    def _learn(self, faces: Array, real: Array, blocks: list[slice]) -> Callable[[Array], Array]:
        count = len(faces)
        held_out = max(count // 10, 8)
        start = ridge(faces[held_out:], real[held_out:])
        x, y = (torch.from_numpy(part.astype(np.float32)) for part in (faces, real - real.mean(axis=0)))
        base = torch.from_numpy(start(faces).astype(np.float32))
        generator = torch.Generator().manual_seed(self._seed)
        last = nn.Linear(self._width, y.shape[1])
        net = nn.Sequential(nn.Linear(x.shape[1], self._width), nn.GELU(), nn.Dropout(0.2), last)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
            last.weight.zero_()
            last.bias.zero_()
        optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-2)
        best, best_loss, patience = _state(net), _loss(base[:held_out], y[:held_out], blocks).item(), 0
        for _ in range(self._epochs):
            net.train()
            order = held_out + torch.randperm(count - held_out, generator=generator)
            for batch in torch.split(order, 128):
                if len(batch) < 2:
                    continue
                with torch.random.fork_rng(devices=[]):  # dropout draws from the global generator
                    torch.manual_seed(int(torch.randint(0, 2**31, (1,), generator=generator)))
                    guess = base[batch] + net(x[batch])
                loss = _loss(guess, y[batch], blocks)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            net.eval()
            with torch.inference_mode():
                held = _loss(base[:held_out] + net(x[:held_out]), y[:held_out], blocks).item()
            if held < best_loss:
                best, best_loss, patience = _state(net), held, 0
            elif (patience := patience + 1) >= 10:
                break
        net.load_state_dict(best)
        net.eval()

        def predict(rows: Array) -> Array:
            with torch.inference_mode():
                more = np.asarray(net(torch.from_numpy(rows.astype(np.float32))).numpy(), np.float64)
            return start(rows) + more

        return predict


def _loss(guess: torch.Tensor, real: torch.Tensor, blocks: list[slice]) -> torch.Tensor:
    losses = []
    for block in blocks:
        a, b = functional.normalize(guess[:, block], dim=1), functional.normalize(real[:, block], dim=1)
        cosines = a @ b.T
        labels = torch.arange(len(a))
        losses.append(functional.cross_entropy(cosines / 0.07, labels) + (1 - cosines.diagonal().mean()))
    return torch.stack(losses).mean()


def _state(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}
