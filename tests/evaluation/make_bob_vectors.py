"""Makes vectors/bob_measure.json with bob.measure 6.1.1 from the score files beside it, which are in its own form.

    python make_bob_vectors.py

It needs an environment of its own: bob.measure wants numpy 1.26. The score files are those that
`exchange_files` writes.
"""

from __future__ import annotations

import json
from pathlib import Path

import bob.measure
from bob.measure.load import split

VECTORS = Path(__file__).parent / "vectors"
TARGETS = (0.1, 0.01, 0.001)

made = {}
for path in sorted(VECTORS.glob("*.txt")):
    impostor, genuine = split(str(path))
    rates = bob.measure.farfrr(impostor, genuine, bob.measure.eer_threshold(impostor, genuine))
    made[path.stem] = {"genuine": len(genuine), "impostor": len(impostor), "at_eer": list(rates), "at_fmr": {}}
    for target in TARGETS:
        threshold = float(bob.measure.far_threshold(impostor, genuine, target))
        fmr, fnmr = bob.measure.farfrr(impostor, genuine, threshold)
        made[path.stem]["at_fmr"][str(target)] = {"threshold": threshold, "fmr": fmr, "fnmr": fnmr}
(VECTORS / "bob_measure.json").write_text(json.dumps(made, indent=1) + "\n")
