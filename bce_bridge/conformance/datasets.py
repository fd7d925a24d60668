"""Real logits and targets, of R's data set infert with a fitted glm or of a user's file; and each implementation's loss sum."""

import csv
import itertools
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mpmath import mp

from bce_bridge.conformance.compare import error_in_ulp, ulp
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
        reader = csv.reader(file, strict=True)
        try:
            names = next(reader, [])
            rows = [row for row in reader if row]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: line {reader.line_num}: {error}") from None
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path} must have each column once, got more of {twice}")
    try:
        columns = zip(*rows, strict=True) if rows else [()] * len(names)
        return {name: np.fromiter(map(float, column), float, len(rows)) for name, column in zip(names, columns, strict=True)}
    except ValueError:
        raise _csv_error(path, names, rows) from None


def _csv_error(path, names, rows):
    """The error for the first field that is missing, has no name, or is no number."""
    for i, row in enumerate(rows):
        for name, text in itertools.zip_longest(names, row, fillvalue=None):
            try:
                float(text if name is not None else None)
            except (TypeError, ValueError):
                name = "(no name)" if name is None else name
                return ValueError(f"{path}: row {i + 2}, column {name} must be a number, got {text!r}")
    raise AssertionError("every field is a number")


def exact_sum(x, y, w, p, progress=lambda text, done, total: None):
    """The sum of the losses of float64 columns, by an oracle that shares nothing with the core: a number of mpmath.

    Rows of moderate numbers go through the C library's long double, of at least 64 significant bits: their sum is taken if its
    error is below 1/32 ULP of float64. All other rows, and all if it is not, go through mpmath.
    """
    moderate = np.isfinite(x) & np.isfinite(y) & np.isfinite(w) & np.isfinite(p) & (np.abs(x) < 11000)
    if np.finfo(np.longdouble).nmant < 63:
        moderate[:] = False
    with mp.workprec(PRECISION):
        total, error = _long_double_sum(*(column[moderate] for column in (x, y, w, p)))
        if not error <= ulp(total, "float64") / 32:
            moderate[:], total = False, mp.mpf(0)
        rows = list(zip(*(column[~moderate] for column in (x, y, w, p))))
        for i, numbers in enumerate(rows):
            if i % 1000 == 0:
                progress("exact sum", i, len(rows))
            total += element(*numbers)[0]
        return total


def _long_double_sum(x, y, w, p):
    """The sum of the losses, and a bound on its error.

    exp and log1p of the C library err by an ULP each, and a term has 5 roundings more: together below 2^-60 of the term. The
    terms are added exactly, as two float64 each, by math.fsum.
    """
    x, y, w, p = (column.astype(np.longdouble) for column in (x, y, w, p))
    log1p = np.log1p(np.exp(-np.abs(x)))
    terms = np.concatenate([w * (1 - y) * (np.maximum(x, 0) + log1p), w * p * y * (np.maximum(-x, 0) + log1p)])
    with np.errstate(over="ignore", invalid="ignore"):
        high = terms.astype(np.float64)
        low = (terms - high).astype(np.float64)
    try:
        total = math.fsum(high)
        rest = math.fsum(itertools.chain(high, [-total], low))
        magnitude = math.fsum(np.abs(high))
    except (OverflowError, ValueError):  # a term or the sum is no finite float64
        return mp.mpf(0), mp.inf
    return mp.mpf(total) + rest, mp.mpf(magnitude) * mp.mpf(2) ** -60


def loss_sums(dataset, progress=lambda text, done, total: None, device="cpu"):
    """A dict for each implementation: name, version, loss sum and its error in ULP; the first is the exact one. Torch's
    tensors are on the device."""
    shape = dataset.logits.shape
    operands = (dataset.logits, dataset.targets, dataset.weight, dataset.pos_weight)
    if dataset.targets.shape != shape:
        raise ValueError(f"target must have the logit's shape {shape}, got shape {dataset.targets.shape}")
    columns = [np.broadcast_to(1.0 if a is None else a, shape).ravel().astype(np.float64) for a in operands]
    total = exact_sum(*columns, progress)
    rows = [{"implementation": "exact", "version": "", "sum": float(total), "ulp": 0.0}]
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
