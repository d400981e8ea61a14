"""The package of data as a whole."""

import subprocess
import sys

from tests.tiny import ROOT


def test_importing_the_package_is_light():
    heavy = {"grain", "jax", "lmdb", "PIL", "sklearn", "tensorflow_datasets"}
    script = f"import sys, diffrep_jax.data; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr + done.stdout
