#!/bin/sh
# pyeer 0.5.6: the threshold that it calls FMR1000 lets more than 0.1 % of impostors pass.
# `fmr1000_th` is the threshold whose FMR is nearest to 0.1 %, from either side. The field's tables mean the lowest FNMR
# at an FMR of at most 0.1 %. With 1,500 impostor scores 2 of them pass (0.133 %).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check pyeer==0.5.6 numpy==2.4.6
env/bin/python - <<'END'
from importlib.metadata import version

from pyeer.eer_info import get_eer_stats

impostors = [number / 3000 for number in range(1500)]  # 0 to 0.49967
genuine = [0.4 + number / 500 for number in range(300)]
stats = get_eer_stats(genuine, impostors)
passed = sum(score >= stats.fmr1000_th for score in impostors)
print("pyeer", version("pyeer"))
print(f"fmr1000_th {stats.fmr1000_th:.6f}: {passed} of {len(impostors)} impostors pass, FMR {passed / 1500:.3%}")
assert passed == 2, "changed: another number of impostors passes"
END
