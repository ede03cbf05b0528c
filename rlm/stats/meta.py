"""Random-effects meta-analysis: from the effects in several systems to the mean effect, and to one in a new system."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import optimize, stats

from rlm.errors import InputError
from rlm.stats.estimates import CONFIDENCE, Estimate

FEWEST_EFFECTS = 3


class Pooled(NamedTuple):
    """
    Mean effect over systems, standard deviation `tau` of the true effects, and the effect in a `new` system.

    The value of `new` is that of the mean; its bounds are a 95 % prediction interval.

    Examples
    --------
    >>> import rlm
    >>> rlm.stats.pool_effects([0.01, 0.02, 0.06], [0.01, 0.01, 0.01]).mean.format(100, "+")
    '+3.0 [-3.6, +9.6]'
    """

    mean: Estimate
    tau: Estimate
    new: Estimate


def pool_effects(effects: ArrayLike, errors: ArrayLike) -> Pooled:
    """
    Pool the effects of several systems.

    Parameters
    ----------
    effects, errors
        Effects in at least three independent systems, and their standard errors, which are positive.

    Returns
    -------
    Pooled
        Mean with its interval, spread of the true effects, and the prediction interval for a new system.

    Raises
    ------
    InputError
        If there are too few effects, or an error is not positive.

    Notes
    -----
    The variance of the true effects is that of restricted maximum likelihood, with the interval of the Q profile
    (Viechtbauer, Statistics in Medicine 26, 2007). The mean has the interval of Hartung and Knapp (Statistics in
    Medicine 20, 2001), never narrower than one without their factor. Prediction interval: Higgins, Thompson and
    Spiegelhalter, Journal of the Royal Statistical Society A 172, 2009; it is too narrow where the errors are as large
    as the spread of the true effects. The systems are taken for a sample of those that the answer is about.

    Examples
    --------
    >>> import rlm
    >>> pooled = rlm.stats.pool_effects([0.01, 0.02, 0.06], [0.01, 0.01, 0.01])
    >>> round(pooled.tau.value, 4)
    0.0245
    """
    y, s = np.asarray(effects, dtype=float), np.asarray(errors, dtype=float)
    if len(y) < FEWEST_EFFECTS or y.shape != s.shape or not (s > 0).all() or not np.isfinite([y, s]).all():
        raise InputError(
            f"expected at least {FEWEST_EFFECTS} effects with standard errors above 0, found {y.tolist()} and "
            f"{s.tolist()}; pool systems of two seeds or more"
        )
    tau_squared = _reml(y, s**2)
    mean, w = _weighted(y, s**2, tau_squared)
    spread = float(w @ (y - mean) ** 2 / (len(y) - 1))
    error = float(np.sqrt(max(spread, 1.0) / w.sum()))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(y) - 1)) * error
    ahead = float(stats.t.ppf((1 + CONFIDENCE) / 2, max(len(y) - 2, 1)) * np.hypot(tau_squared**0.5, error))
    bounds = [_profile(y, s**2, tail) ** 0.5 for tail in ((1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2)]
    return Pooled(
        Estimate(mean, mean - reach, mean + reach),
        Estimate(tau_squared**0.5, *bounds),
        Estimate(mean, mean - ahead, mean + ahead),
    )


def _weighted(
    y: Float[np.ndarray, " system"], variances: Float[np.ndarray, " system"], tau_squared: float
) -> tuple[float, Float[np.ndarray, " system"]]:
    """Return the weighted mean, and the weights: inverse variances."""
    weights = 1 / (variances + tau_squared)
    return float(weights @ y / weights.sum()), weights


def _reml(y: Float[np.ndarray, " system"], variances: Float[np.ndarray, " system"]) -> float:
    """Maximise the restricted likelihood over the variance of the true effects."""

    def loss(tau_squared: float) -> float:
        mean, w = _weighted(y, variances, tau_squared)
        return float(w @ (y - mean) ** 2 - np.log(w).sum() + np.log(w.sum()))

    most = float(np.ptp(y) ** 2 + variances.max())
    tried = np.append(0.0, np.geomspace(1e-8, 1, 200) * most)
    best = int(np.argmin([loss(one) for one in tried]))
    low, high = tried[max(best - 1, 0)], tried[min(best + 1, len(tried) - 1)]
    found = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-10 * most})
    return 0.0 if loss(0.0) <= found.fun else float(found.x)


def _profile(y: Float[np.ndarray, " system"], variances: Float[np.ndarray, " system"], tail: float) -> float:
    """Return the variance of the true effects at which the Q statistic is this quantile of chi-square; 0 below it."""

    def excess(tau_squared: float) -> float:
        mean, w = _weighted(y, variances, tau_squared)
        return float(w @ (y - mean) ** 2 - stats.chi2.ppf(tail, len(y) - 1))

    if excess(0.0) <= 0:
        return 0.0
    most = float(np.ptp(y) ** 2 + variances.max())
    while excess(most) > 0:
        most *= 4
    return float(optimize.brentq(excess, 0.0, most, xtol=1e-14 * most))
