"""What a training function returns: numbers by metric, or by metric and cluster."""

from collections.abc import Mapping, Sequence

import numpy as np

from rlm.errors import InputError
from rlm.stats.metrics import Metric

Clusters = dict[str, tuple[int, float]]  # number of items and their mean


def check_answer(answer: object, metrics: Sequence[Metric], arm: str, seed: int) -> dict[str, tuple[float, Clusters]]:
    """Return the value of each metric, missing where it is not finite, and its clusters."""
    run = f"of arm {arm!r} and seed {seed}"
    if not isinstance(answer, Mapping):
        raise InputError(f"expected a mapping from metrics to numbers {run}, found {answer!r}; return a dict")
    found = {}
    for metric in metrics:
        if metric.name not in answer:
            names = ", ".join(map(str, answer)) or "nothing"
            raise InputError(f"expected {metric.name} {run}, found {names}; return it, or pass other metrics")
        found[metric.name] = _read_value(answer[metric.name], metric, run)
    return found


def _read_value(given: object, metric: Metric, run: str) -> tuple[float, Clusters]:
    """Return the mean of all items, and the number and the mean of each named cluster's."""
    named = given if isinstance(given, Mapping) else {"": given}
    clusters = {str(name): np.atleast_1d(_numbers(one, metric, run)) for name, one in named.items()}
    if not clusters or not all(map(len, clusters.values())):
        raise InputError(f"expected a number in each part of {metric.name} {run}, found none; return at least one")
    mean = np.concatenate(list(clusters.values())).mean()
    found = {name: (len(values), float(values.mean())) for name, values in clusters.items()}
    return float(mean), found if named is given else {}


def _numbers(given: object, metric: Metric, run: str) -> np.ndarray:
    """Return one number or a list of them as floats, missing where they are not finite."""
    values = np.asarray(given)
    if values.dtype.kind not in "iuf" or values.ndim > 1:
        raise InputError(f"expected a number, or a list of them, as {metric.name} {run}, found {given!r}; return one")
    values = np.where(np.isfinite(values), values, np.nan).astype(float)
    if (values < metric.low).any() or (values > metric.high).any():
        remedy = "divide percent by 100" if metric.is_share else "correct the function, or the range of the metric"
        raise InputError(
            f"expected {metric.name} {run} from {metric.low:g} to {metric.high:g}, found "
            f"{np.nanmax(np.abs(values)):g}; {remedy}"
        )
    return values
