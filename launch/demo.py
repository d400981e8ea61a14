"""`make demo`: train a small DBAE on scanned digits, reconstruct held-out ones, interpolate between two."""

import json
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

WORKDIR = ROOT / "runs" / "demo"


def run() -> None:
    from launch import main

    def command(*arguments: str) -> None:
        print(f"\n$ python launch/main.py {' '.join(arguments)}", flush=True)
        main.run([*arguments])

    began = time.perf_counter()
    workdir = f"--workdir={WORKDIR}"
    print(
        "A Diffusion Bridge AutoEncoder learns 1,500 scanned digits of 16 x 16 pixels as codes of 64 numbers.\n"
        "It trains for about three minutes on two cores, four at the most."
    )
    command(f"--config={ROOT / 'configs' / 'dbae_digits.py'}", workdir, "--config.train.max_minutes=3.5")
    command(workdir, "--task=reconstruct")
    command(workdir, "--task=interpolate")

    numbers = json.loads((WORKDIR / "reconstruct" / "metrics.json").read_text())
    share = numbers["mse"] / numbers["mse_of_mean_image"]
    print(
        f"\nDone in {(time.perf_counter() - began) / 60:.1f} minutes. {numbers['images']} held-out digits came back "
        f"from their codes with an MSE of {numbers['mse']:.5f},\n{share:.3f} of what answering their mean image would "
        f"give; SSIM {numbers['ssim']:.3f}. Look at:"
    )
    for picture in ("reconstruct/grid.png", "interpolate/strip.png", "interpolate/interpolation.gif"):
        print(f"  {WORKDIR / picture}")
    print(f"The numbers and curves are in {WORKDIR}: metrics.jsonl; tensorboard --logdir {WORKDIR}")


if __name__ == "__main__":
    run()
