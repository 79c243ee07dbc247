"""Floor 1: did it help? Metrics, bootstrap intervals, calibration, the verdict sentence, the map of the
features."""

from regraft.measure.bootstrap import Interval, bootstrap, paired_gain, wilson
from regraft.measure.calibration import abstention, fit_temperature, reliability, risk_coverage
from regraft.measure.conformal import ConformalInterval, conformal_interval
from regraft.measure.embedding import tsne
from regraft.measure.metrics import METRICS, NUMBER_METRICS, Metric, metric_of, score, summary
from regraft.measure.regression import number_bootstrap, number_gain, number_score, number_summary
from regraft.measure.verdict import Verdict, alarms, format_gain, format_number, format_value, number_alarms, verdict

__all__ = [
    "METRICS",
    "NUMBER_METRICS",
    "ConformalInterval",
    "Interval",
    "Metric",
    "Verdict",
    "abstention",
    "alarms",
    "bootstrap",
    "conformal_interval",
    "fit_temperature",
    "format_gain",
    "format_number",
    "format_value",
    "metric_of",
    "number_alarms",
    "number_bootstrap",
    "number_gain",
    "number_score",
    "number_summary",
    "paired_gain",
    "reliability",
    "risk_coverage",
    "score",
    "summary",
    "tsne",
    "verdict",
    "wilson",
]
