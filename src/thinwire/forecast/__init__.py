"""What to expect of a link, and when it became another one, from what was seen of it. Pure.

``Forecaster`` predicts one quantity; ``LinkLearner`` learns bandwidths and the round trip of one link for free, from
what its owner counts while the job's own traffic passes; ``WireLearner`` what the host's wire carries of all links
together. Not here: who counts (``transport``), and who asks
(``runtime``).
"""

from thinwire.forecast.forecaster import Forecast, Forecaster
from thinwire.forecast.traffic import LinkEstimate, LinkLearner, Traffic
from thinwire.forecast.wire import WireEstimate, WireLearner

__all__ = [
    "Forecast",
    "Forecaster",
    "LinkEstimate",
    "LinkLearner",
    "Traffic",
    "WireEstimate",
    "WireLearner",
]
