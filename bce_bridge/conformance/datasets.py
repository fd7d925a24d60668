"""Real logits and targets, of R's data set infert with a fitted glm or of a user's file; and each implementation's loss sum."""

import csv
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mpmath import mp

from bce_bridge.conformance.compare import error_in_ulp
from bce_bridge.conformance.exact import PRECISION, element
from bce_bridge.conformance.implementations import IMPLEMENTATIONS, NotInstalled, RecordedRTorch

COLUMNS = ("logit", "target", "weight", "pos_weight")

INFERT = """
fit <- stats::glm(case ~ age + parity + education + spontaneous + induced, data = datasets::infert, family = stats::binomial())
list(logit = unname(fit$linear.predictors), target = as.double(fit$y), half_deviance = fit$deviance / 2)
"""


@dataclass(frozen=True)
class Dataset:
    """A named column of logits, one of targets, and optional ones of weights; with R's own answer, if it has one."""

    name: str
    logits: np.ndarray
    targets: np.ndarray
    weight: np.ndarray | None = None
    pos_weight: np.ndarray | None = None
    half_deviance: float | None = None


def infert():
    """R's data set infert, with the linear predictors of a logistic regression fitted by glm and its deviance / 2."""
    from bce_bridge import r

    columns = r.run(INFERT)
    return Dataset(
        "infert: glm(case ~ age + parity + education + spontaneous + induced, binomial), logits from R",
        np.asarray(columns["logit"]),
        np.asarray(columns["target"]),
        half_deviance=float(columns["half_deviance"][0]),
    )


def from_file(path):
    """A Dataset from .npz (arrays) or .csv (a header line): logit, target, and optional weight, pos_weight.

    Raises ValueError that names the file, the column and the row of what is missing or no number.
    """
    path = Path(path)
    if path.suffix == ".npz":
        columns = _read_npz(path)
    elif path.suffix == ".csv":
        columns = _read_csv(path)
    else:
        raise ValueError(f"{path} must be a .npz or .csv file, got {path.suffix or 'no suffix'}")
    unknown = sorted(set(columns) - set(COLUMNS))
    missing = [name for name in COLUMNS[:2] if name not in columns]
    if unknown or missing:
        raise ValueError(f"{path} must have the columns logit, target and optionally weight, pos_weight, got {sorted(columns)}")
    for name, column in columns.items():
        if column.dtype.kind not in "fiub":
            raise ValueError(f"{path}: column {name} must have a real dtype, got {column.dtype}")
    return Dataset(str(path), *(columns.get(name) for name in COLUMNS))


def _read_npz(path):
    try:
        with open(path, "rb") as file:
            archive = np.load(file)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array, as .npy files do")
            with archive:
                return {name: archive[name] for name in archive.files}
    except (EOFError, MemoryError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} must be a readable .npz file: {error}") from None


def _read_csv(path):
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            names = reader.fieldnames or []
            rows = list(reader)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: line {reader.line_num}: {error}") from None
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path} must have each column once, got more of {twice}")
    columns = {name: np.empty(len(rows)) for name in names}
    for i, row in enumerate(rows):
        for name in [*names, *(["(no name)"] if None in row else [])]:
            text = row.get(name if name in names else None)
            try:
                columns[name][i] = float(text)
            except (TypeError, ValueError, KeyError):
                raise ValueError(f"{path}: row {i + 2}, column {name} must be a number, got {text!r}") from None
    return columns


def loss_sums(dataset, progress=lambda text, done, total: None, device="cpu"):
    """A dict for each implementation: name, version, loss sum and its error in ULP; the first is the exact one. Torch's
    tensors are on the device."""
    shape = dataset.logits.shape
    operands = (dataset.logits, dataset.targets, dataset.weight, dataset.pos_weight)
    if dataset.targets.shape != shape:
        raise ValueError(f"target must have the logit's shape {shape}, got shape {dataset.targets.shape}")
    columns = [np.broadcast_to(1.0 if a is None else a, shape).ravel() for a in operands]
    total = mp.mpf(0)
    with mp.workprec(PRECISION):
        for i, numbers in enumerate(zip(*columns)):
            if i % 1000 == 0:
                progress("exact sum", i, len(columns[0]))
            total += element(*numbers)[0]
    rows = [{"implementation": "exact (mpmath)", "version": "", "sum": float(total), "ulp": 0.0}]
    if dataset.half_deviance is not None:
        rows.append(
            {
                "implementation": "R glm: deviance / 2",
                "version": "",
                "sum": dataset.half_deviance,
                "ulp": error_in_ulp(dataset.half_deviance, total, "float64"),
            }
        )
    floats = [None if a is None else np.asarray(a, np.float64) for a in operands]
    for kind in IMPLEMENTATIONS:
        implementation = kind(device)
        if kind is RecordedRTorch or not implementation.expresses(*floats):
            continue  # the recording answers its own cases only
        try:
            version = implementation.open()
        except NotInstalled as hint:
            rows.append({"implementation": implementation.name, "version": "not installed", "hint": str(hint)})
            continue
        progress(implementation.name, 0, 1)
        value = float(implementation.loss_and_grad(*floats, "sum")[0])
        rows.append(
            {
                "implementation": implementation.name,
                "version": version,
                "sum": value,
                "ulp": error_in_ulp(value, total, "float64"),
            }
        )
    return rows
