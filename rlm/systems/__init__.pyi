"""Systems, which are encoders with losses: trained side by side on the same splits and seeds, and compared."""

from .backbones import sentence_transformers as sentence_transformers
from .plots import draw as draw, draw_sweep as draw_sweep
from .sweeps import Sweep as Sweep, sweep as sweep
from .tables import (
    METRICS as METRICS,
    compare as compare,
    generalise as generalise,
    read_pair as read_pair,
    summarise as summarise,
    tabulate as tabulate,
)
from .training import ALL as ALL, run as run
from .words import explain as explain
