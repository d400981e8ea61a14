"""The networks of `benchmarks/torch_networks.py` on given weights and inputs, for a Python that has PyTorch.

python -m tests.yardstick IN.npz OUT.npz; IN: `arguments`, JSON of {network: arguments}, arrays `NETWORK/PARAMETER` and
`NETWORK inputs/NUMBER`, images as NHWC. OUT: the networks' outputs.
"""

import json
import sys

import numpy as np
import torch  # pyright: ignore[reportMissingImports]

from benchmarks import torch_networks


def exchanged(x):
    """Images between NHWC and NCHW."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if x.ndim == 4 else x


def output(name, arguments, arrays):
    """Of one network, in evaluation."""
    network = getattr(torch_networks, name)(**arguments)
    weights = {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}
    network.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in weights.items()})
    inputs = [torch.from_numpy(exchanged(arrays[key])) for key in sorted(arrays) if key.startswith(f"{name} inputs/")]
    with torch.no_grad():
        result = network.eval()(*inputs).numpy()
    return np.moveaxis(result, 1, -1) if result.ndim == 4 else result


def main(source, target):
    with np.load(source) as file:
        arrays = dict(file)
    arguments = json.loads(str(arrays["arguments"]))
    np.savez(target, **{name: output(name, given, arrays) for name, given in arguments.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
