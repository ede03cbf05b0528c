"""Other people's training: functions, tables of results, logs."""

from .functions import judge as judge
from .stored import read_judged as read_judged
from .tables import Results as Results, read_results as read_results
from .unpaired import Unpaired as Unpaired, compare_results as compare_results
