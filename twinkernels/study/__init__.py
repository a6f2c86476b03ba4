"""Study: the effect of each factor of a training on its accuracy, with its spread over seeds, through Optuna.

The trials are enumerated beforehand, in `factors`: every setup at each of its learning rates, for every seed. `trials`
carries one out, `storage` keeps them, `runner` has them done, `effects` is the statistics of what they came to, and
`page` shows it.
"""

from .effects import Effect
from .runner import Findings, run

__all__ = ["Effect", "Findings", "run"]
