"""Floor 4: a run directory becomes `report.json` (schema) and one self-contained HTML page."""

from regraft.report.schema import REPORT_FORMAT, Report, read_report, write_report

__all__ = ["REPORT_FORMAT", "Report", "read_report", "write_report"]
