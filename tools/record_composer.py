"""Writes tests/systems/data/composer.json: Composer's own answers to tests/systems/composer_problems.py.

    make record-composer

Numbers are C99 hex floats. The arguments size_average and reduce are answered by mosaicml 0.13.5, the last to have them, whose
loss.py is taken from the folder given as the argument; all else by the mosaicml that is installed.
"""

import importlib.util
import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/systems"))

from composer_problems import answer, problems  # noqa: E402


def real(legacy):
    """Composer's function, of today or of 0.13.5 by what its arguments want."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what Composer imports
        from composer.loss import binary_cross_entropy_with_logits as today

        spec = importlib.util.spec_from_file_location("legacy_composer_loss", Path(legacy) / "composer/loss/loss.py")
        old = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(old)
    return lambda **arguments: (old.binary_cross_entropy_with_logits if "reduce" in arguments else today)(**arguments)


def encode(value):
    """A tensor as its type, shape and numbers."""
    if not isinstance(value, torch.Tensor):
        return value
    return {
        "dtype": str(value.dtype).removeprefix("torch."),
        "shape": list(value.shape),
        "data": [float(number).hex() if value.dtype.is_floating_point else int(number) for number in value.flatten()],
    }


def main():
    function = real(sys.argv[1])
    records = []
    for id, arguments in problems(seed=0):
        parts = {"arguments": arguments, "answer": answer(function, arguments)}
        records.append({"id": id, **{part: {k: encode(v) for k, v in values.items()} for part, values in parts.items()}})
    lines = ",\n".join(json.dumps(record) for record in records)
    versions = {"mosaicml": version("mosaicml"), "legacy": "0.13.5", "torch": torch.__version__}
    head = json.dumps({"command": "make record-composer", **versions})
    path = ROOT / "tests/systems/data/composer.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'{head[:-1]}, "answers": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
