"""`anonymix generators inspect` says what a checkpoint is, and what is wrong with one that is none."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from stylegan2_checkpoints import Plan, e4e, random_weights, rosinality, write, write_nvidia

from anonymix_plugin.cli import main
from anonymix_plugin.errors import CheckpointError, DamagedModelError
from anonymix_plugin.generator.stylegan2 import load_stylegan2
from anonymix_plugin.generator.stylegan2_inspect import inspect_checkpoint
from anonymix_plugin.mixer.subspace import IdentitySubspace
from anonymix_plugin.mixer.weights import MixerWeights

WEIGHTS = random_weights(Plan(width=16, layers=2, channels=(6, 5, 5, 4, 4)))


def test_everything_is_told_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "g.pt", rosinality(WEIGHTS))
    assert main(["generators", "inspect", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["format"] == "rosinality"
    assert found["container"] == "torch zip"
    assert found["resolution"] == 64
    assert found["style_inputs"] == 10
    assert found["layers"] == {"coarse": "0-2", "identity": "3-7", "fine": "8-9"}
    assert (found["z_dim"], found["w_dim"], found["mapping_layers"]) == (16, 16, 2)
    assert found["channels"] == [6, 5, 5, 4, 4]
    learned = [value.numel() for name, value in WEIGHTS.items() if not name.endswith((".noise", "centre"))]
    assert found["parameters"] == sum(learned)
    assert found["noise_maps"]
    assert found["has_centre"]
    assert found["encoder"] == ""
    assert found["file_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert found["weights_hash"] == load_stylegan2(file).weights_hash()
    assert "unknown" in found["licence"]
    assert "another generator" in found["mixer_weights"]


def test_a_table_is_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("NO_COLOR", "1")
    file = write_nvidia(tmp_path / "g.pkl", WEIGHTS, marker=tmp_path / "ran", clamp=256.0)
    assert main(["generators", "inspect", str(file)]) == 0
    out = capsys.readouterr().out
    for words in ("nvidia, in a pickle file", "64 px", "bound of activations", "256", "licence", "unknown"):
        assert words in out
    assert not (tmp_path / "ran").exists()


def test_the_encoder_in_a_file_is_named(tmp_path: Path) -> None:
    import torch

    content = e4e(WEIGHTS, {"input_layer.0.weight": torch.ones(2)})
    assert inspect_checkpoint(write(tmp_path / "e.pt", content)).encoder == "Encoder4Editing"
    content["opts"] = {}
    assert "does not name" in inspect_checkpoint(write(tmp_path / "e.pt", content)).encoder


def test_mixer_weights_are_matched_by_hash(tmp_path: Path) -> None:
    file = write(tmp_path / "g.pt", rosinality(WEIGHTS))
    subspace = IdentitySubspace(np.zeros(640, np.float32), np.eye(640, 4, dtype=np.float32))
    for name, text in ((load_stylegan2(file).weights_hash(), "belong to it"), ("x", "another generator")):
        mixer = MixerWeights(
            subspace,
            np.zeros(16, np.float32),
            np.eye(16, dtype=np.float32),
            np.zeros((3, 16, 6), np.float32),
            name,
        )
        mixer.save(tmp_path / "mixer.safetensors", {})
        assert text in inspect_checkpoint(file, tmp_path / "mixer.safetensors").mixer_weights
    (tmp_path / "mixer.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(DamagedModelError, match="can't be read"):
        inspect_checkpoint(file, tmp_path / "mixer.safetensors")


def test_what_is_no_checkpoint_ends_with_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "evil.pkl"
    file.write_bytes(b"\x80\x02cposix\nsystem\n.")
    assert main(["generators", "inspect", str(file), "--json"]) == CheckpointError.exit_code == 5
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "checkpoint"
    assert error["where"] == str(file)
    assert "posix.system" in error["what"]
    assert main(["generators", "inspect", str(tmp_path / "missing.pt")]) == 5
