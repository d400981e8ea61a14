"""The command `diffrep-jax` of an installation: launch/main.py, from the wheel's folder share or from the checkout."""

import pathlib
import runpy


def main() -> None:
    package = pathlib.Path(__file__).parent
    scripts = [folder / "launch" / "main.py" for folder in (package / "share", package.parent)]
    runpy.run_path(str(next(script for script in scripts if script.is_file())), run_name="__main__")
