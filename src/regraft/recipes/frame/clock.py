"""The one clock of a run: seconds spent on it, over all its resumes."""

from __future__ import annotations

from regraft.core.clock import seconds_since_start
from regraft.core.files import read_json, write_json
from regraft.core.rundir import RunDirectory


class Clock:
    """Seconds spent on a run. began_s: when this process took it up, as `core.clock.job_began_s` gives it."""

    def __init__(self, run: RunDirectory, began_s: float = 0.0) -> None:
        self.path = run.path / "work" / "spent.json"
        before = float(read_json(self.path)["spent_s"]) if self.path.is_file() else 0.0
        self._offset_s = before - began_s

    def spent(self) -> float:
        return self._offset_s + seconds_since_start()

    def keep(self) -> None:
        """Remember what was spent, for a resume."""
        write_json(self.path, {"spent_s": round(self.spent(), 3)})
