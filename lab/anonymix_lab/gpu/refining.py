"""The presets of the refine method on many faces: workers share the card, a face each."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import typer
from PIL import Image

from anonymix_lab.data.keys import SHARED_SCOPE, SeededKeys
from anonymix_lab.gpu.context import Context
from anonymix_plugin.files import write_text
from anonymix_plugin.generator import Engine
from anonymix_plugin.values import Floats

_WORKERS = 8
_GRACE = 10.0  # seconds for the face that a worker is at when its time is over


def compare_presets(context: Context) -> dict[str, Any]:
    """Refine the two photos each of people by each preset, and compare what recognisers see.

    The photos are those of `--photos`: a folder of photos named PERSON_NUMBER.

    Returns:
        Preset -> seconds a face; for each recogniser the mean cosine of a person's two faces, of strangers
        under one key, and of a face with the photo that it was made of.
    """
    settings = context.settings
    photos = sorted((settings.photos or Path("tests/people")).glob("*.jpg"))
    photos = photos[: 2 if settings.rehearsal else 50]
    workers = 1 if settings.rehearsal else _WORKERS
    presets = settings.presets[:2] if settings.rehearsal else settings.presets
    result: dict[str, Any] = {"photos": len(photos)}
    for place, preset in enumerate(presets):
        share = context.left / (len(presets) - place)
        if share < 8 and not settings.rehearsal:
            result[preset] = "left out, too little time"
            continue
        began = time.monotonic()
        running = [
            subprocess.Popen(  # noqa: S603 - this program, with paths of our own
                [
                    *(sys.executable, "-m", "anonymix_lab.gpu.refining", preset, settings.device),
                    *(str(context.folder), f"{share:.0f}", *map(str, photos[worker::workers])),
                ],
                stdout=subprocess.DEVNULL,
            )
            for worker in range(workers)
        ]
        _end(running, began + share + _GRACE)
        rows = [
            json.loads(path.read_text(encoding="utf-8")) for path in sorted(context.folder.glob(f"{preset}-*.json"))
        ]
        result[preset] = _figures(rows) | {"seconds of all": time.monotonic() - began}
        context.say(f"{preset}: {len(rows)} faces in {time.monotonic() - began:.0f} s")
    _sheet(context.folder, [path.stem for path in photos], list(presets))
    return result


def _end(running: list[subprocess.Popen[bytes]], until: float) -> None:
    """Wait for workers; those that are not done by then are ended, and what they have made counts."""
    for process in running:
        try:
            process.wait(timeout=max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    if len(rows) < 2:
        return {"faces": len(rows)}
    who = np.array([row["photo"].partition("_")[0] for row in rows])
    same = np.triu(who[:, None] == who[None], 1)
    others = np.triu(who[:, None] != who[None], 1)
    found: dict[str, Any] = {
        "faces": len(rows),
        "seconds a face, median": float(np.median([row["seconds"] for row in rows])),
    }
    for name in rows[0]["seen"]:
        seen: Floats = np.array([row["seen"][name] for row in rows], np.float32)
        original: Floats = np.array([row["original"][name] for row in rows], np.float32)
        cosines, to_photo = seen @ seen.T, (seen * original).sum(axis=1)
        found[name] = {
            "same person": _mean(cosines[same]),
            "strangers, one key": _mean(cosines[others]),
            "its photo": _mean(to_photo),
        }
    return found


def _mean(values: Floats) -> list[float] | None:
    return [float(values.mean()), float(values.std())] if len(values) else None


def _sheet(folder: Path, photos: list[str], presets: list[str]) -> None:
    """A sheet of the first ten photos' faces: a column a photo, a row a preset."""
    side, shown = 192, photos[:10]
    sheet = Image.new("RGB", (side * len(shown), side * len(presets)))
    for row, preset in enumerate(presets):
        for column, photo in enumerate(shown):
            path = folder / f"{preset}-{photo}.jpg"
            if path.is_file():
                sheet.paste(Image.open(path).resize((side, side)), (column * side, row * side))
    sheet.save(folder / "presets.jpg", quality=88)


def work(preset: str, device: str, folder: Path, seconds: float, photos: list[Path]) -> None:
    """Make one face after the other until the time is over; FOLDER/PRESET-PHOTO.json and .jpg of each."""
    from anonymix_plugin.anonymixer import Anonymixer
    from anonymix_plugin.faces import YuNet, recogniser_crop, select_faces
    from anonymix_plugin.images import decode_photo
    from anonymix_plugin.models import locate
    from anonymix_plugin.recognisers import load_recogniser

    until = time.monotonic() + seconds
    engine: Engine = "cuda" if device.startswith("cuda") else "auto"
    mixer = (
        Anonymixer(SeededKeys(1), engine=engine)
        if preset == "fast"
        else Anonymixer(SeededKeys(1), method="refine", refinement=preset, engine=engine)  # type: ignore[arg-type]
    )
    detector = YuNet(locate("yunet"))
    recognisers = {name: load_recogniser(name) for name in ("arcface-mbf", "sface")}

    def seen(source: object) -> dict[str, list[float]]:
        photo = decode_photo(source)  # type: ignore[arg-type]
        crop = recogniser_crop(select_faces(detector.detect(photo), "largest", photo)[0])[None]
        return {
            name: (found / np.linalg.norm(found)).tolist()
            for name, found in ((name, one.embed(crop)[0]) for name, one in recognisers.items())
        }

    for path in photos:
        if time.monotonic() > until:
            return
        began = time.monotonic()
        made = mixer.protect(path, subject=path.stem.partition("_")[0], scope=SHARED_SCOPE)
        row = {"photo": path.stem, "seconds": time.monotonic() - began}
        Image.fromarray(made.pixels).save(folder / f"{preset}-{path.stem}.jpg", quality=90)
        try:
            row |= {"seen": seen(made.pixels), "original": seen(path)}
        except Exception as error:  # noqa: BLE001 - a face that no detector finds is a figure, too
            write_text(folder / f"{preset}-{path.stem}.txt", f"{type(error).__name__}: {error}")
            continue
        write_text(folder / f"{preset}-{path.stem}.json", json.dumps(row))


if __name__ == "__main__":
    typer.run(work)
