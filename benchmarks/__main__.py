"""Every benchmark with its default settings: `python -m benchmarks` (half an hour)."""

import subprocess
import sys

from benchmarks import forward, hyper_cleaning, hypergradient, memory, meta_iteration, reversal

for options in ([], ["--adam"], ["--float64", "--networks", "dense-128"]):
    sys.argv[1:] = options
    hypergradient.main()
sys.argv[1:] = ["--picture", "docs/images/memory.png"]
memory.main()
sys.argv[1:] = []
reversal.main()
forward.main()
hyper_cleaning.main()
meta_iteration.main()
# One thread needs a process of its own.
subprocess.run([sys.executable, "-m", "benchmarks.outer_step"], check=True)
