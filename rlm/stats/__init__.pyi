"""Statistics: estimates, intervals and tests. No tensors, no axes, no sentences."""

from .anytime import ConfidenceSequence as ConfidenceSequence, confidence_sequence as confidence_sequence
from .crossed import NewData as NewData
from .estimates import Estimate as Estimate
from .meta import Pooled as Pooled, pool_effects as pool_effects
from .metrics import Failed as Failed, Metric as Metric, count_failed as count_failed
from .power import Forecast as Forecast, pairs_needed as pairs_needed
from .variance import (
    Spread as Spread,
    decompose_spread as decompose_spread,
    tabulate_luck as tabulate_luck,
    tabulate_spread as tabulate_spread,
    tabulate_triplets as tabulate_triplets,
)
