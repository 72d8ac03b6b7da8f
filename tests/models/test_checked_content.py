"""What runs is what was checked: weights are read once, and the same on every processor."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anonymix_lab.data.keys import SeededKeys
from anonymix_plugin import Anonymixer, DamagedModelError, MissingModelError
from anonymix_plugin.faces import YuNet
from anonymix_plugin.generator import load_generator
from anonymix_plugin.models import content_of_model, load_checked, locate, pull, sources
from anonymix_plugin.recognisers import load_recogniser
from anonymix_plugin.values import Photo
from anonymix_plugin.verification import Verifier

EMPTY = Photo(np.zeros((320, 320, 3), np.uint8), "nothing")


def test_a_detector_keeps_what_was_checked(model: Callable[[str], Path], tmp_path: Path) -> None:
    model("yunet")
    content = load_checked("yunet")
    assert hashlib.sha256(content).hexdigest() == sources("yunet")[0].sha256
    file = tmp_path / "yunet.onnx"
    file.write_bytes(content)
    detector = YuNet(file)
    file.unlink()  # or exchanged: whatever is there later is not asked
    with ThreadPoolExecutor(6) as pool:  # more networks than there were
        assert list(pool.map(detector.detect, [EMPTY] * 12)) == [[]] * 12


def test_weights_that_were_exchanged_behind_their_stamp_are_not_loaded(index: Any) -> None:
    index.add("toy", {"a.bin": b"weights"})
    pull(["toy"])
    path = locate("toy")
    assert load_checked("toy") == b"weights"
    times = path.stat()
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert locate("toy") == path  # time, size and inode say that nothing happened
    with pytest.raises(DamagedModelError, match="SHA-256"):
        load_checked("toy")
    path.unlink()
    with pytest.raises(MissingModelError, match="anonymix models pull toy"):
        load_checked("toy")


def test_weights_to_be_read_later_are_there_now_and_checked_then(index: Any) -> None:
    index.add("toy", {"a.bin": b"weights"})
    with pytest.raises(MissingModelError, match="anonymix models pull toy"):
        content_of_model("toy")
    pull(["toy"])
    content, path = content_of_model("toy"), locate("toy")
    assert content.read() == b"weights"
    path.write_bytes(b"WEIGHTS")
    with pytest.raises(DamagedModelError, match="SHA-256"):
        content.read()
    path.write_bytes(b"weight")
    with pytest.raises(DamagedModelError, match="SHA-256"):
        content_of_model("toy")


def test_no_file_is_read_once_a_mixer_is_open(
    model: Callable[[str], Path], portraits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {model(name).parent for name in ("mobilestylegan", "yunet", "arcface-mbf", "sface")}
    photo = (portraits / "001_neutral.jpg").read_bytes()
    opened: list[str] = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" and watching else None)
    watching = False
    with Anonymixer(SeededKeys(1)) as mixer:
        watching = True
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: mixer.protect(photo, subject="alice"), range(4)))
        watching = False
    assert not [name for name in opened if any(name.startswith(str(folder)) for folder in folders)]


def test_compiled_networks_compute_in_float32(model: Callable[[str], Path]) -> None:
    openvino = pytest.importorskip("openvino")
    for name in ("mobilestylegan", "arcface-mbf", "sface"):
        model(name)
    generator: Any = load_generator("openvino")
    with generator._requests[512].lent() as request:
        compiled = [request.get_compiled_model()]
    for name in ("arcface-mbf", "sface"):
        recogniser: Any = load_recogniser(name)
        compiled.append(recogniser._network._compiled)
    for network in compiled:
        assert network.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
        kinds = {node.get_rt_info()["runtimePrecision"].astype(str) for node in _running(network)}
        assert not kinds & {"bf16", "f16"}, kinds


def _running(network: Any) -> list[Any]:
    nodes = network.get_runtime_model().get_ordered_ops()
    return [node for node in nodes if "runtimePrecision" in node.get_rt_info()]


@pytest.mark.parametrize("disabled", ["AVX512_SKX", "AVX2,FMA3,AVX512_SKX,AVX512_ICL,AVX512_CLX"])
def test_other_processors_make_the_same_face(
    disabled: str, model: Callable[[str], Path], portraits: Path, tmp_path: Path
) -> None:
    for name in ("mobilestylegan", "yunet", "arcface-mbf", "sface"):
        model(name)
    photo = portraits / "001_neutral.jpg"
    made = tmp_path / "face.npy"
    code = (
        "import sys, numpy\n"
        "from anonymix_lab.data.keys import SeededKeys\n"
        "from anonymix_plugin import Anonymixer\n"
        "face = Anonymixer(SeededKeys(1)).protect(sys.argv[1], subject='alice')\n"
        "numpy.save(sys.argv[2], face.pixels)\n"
    )
    environment = os.environ | {"OPENCV_CPU_DISABLE": disabled}
    ended = subprocess.run(
        [sys.executable, "-c", code, str(photo), str(made)], env=environment, capture_output=True, check=False
    )
    if b"OPENCV_CPU_DISABLE" in ended.stderr and ended.returncode:
        pytest.skip("this build of OpenCV can't do without that")
    assert ended.returncode == 0, ended.stderr[-800:]
    matcher = Verifier("sface")
    with Anonymixer(SeededKeys(1)) as mixer:
        here = matcher.embed(mixer.protect(photo, subject="alice"))
    assert float(here @ matcher.embed(np.load(made))) >= 0.999
