"""Floor 1: did it help? Metrics, bootstrap intervals, calibration, the verdict sentence, the map of the
features."""

from regraft.measure.bootstrap import Interval, bootstrap, paired_gain, wilson
from regraft.measure.calibration import abstention, fit_temperature, reliability, risk_coverage
from regraft.measure.embedding import tsne
from regraft.measure.metrics import METRICS, Metric, score, summary
from regraft.measure.verdict import Verdict, alarms, format_gain, format_value, verdict

__all__ = [
    "METRICS",
    "Interval",
    "Metric",
    "Verdict",
    "abstention",
    "alarms",
    "bootstrap",
    "fit_temperature",
    "format_gain",
    "format_value",
    "paired_gain",
    "reliability",
    "risk_coverage",
    "score",
    "summary",
    "tsne",
    "verdict",
    "wilson",
]
