"""How fast this machine is at it, beside what it could be and beside what others do."""

from anonymix_lab.bench.run import BenchResult, BenchSettings, run_bench

__all__ = ["BenchResult", "BenchSettings", "run_bench"]
