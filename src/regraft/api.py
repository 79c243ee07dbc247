"""What a Python program calls: `fit`, `adapt`, `generalise` and `load`, and the run that the first three give."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regraft.core.listener import Listener
from regraft.core.rundir import resolve_run
from regraft.deploy.predictor import Predictor
from regraft.recipes.fit.job import run_fit
from regraft.recipes.fit.options import FitConfig
from regraft.report.frame import Report

PathLike = str | os.PathLike[str]


class Run:
    """A finished run: its figures, its report and its folder."""

    def __init__(self, path: PathLike) -> None:
        self.path = resolve_run(Path(path))

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def data(self) -> Report:
        """Everything in report.json, with the fields of its job and of its kind of labels: docs/report.md."""
        from regraft.recipes.reports import read_report

        return read_report(self.path)

    @property
    def verdict(self) -> str:
        """The one sentence that says whether transfer helped."""
        return self.data.verdict

    @property
    def value(self) -> float | None:
        """The chosen model's figure on the test pictures, in the run's metric."""
        return self.data.value

    def report(self) -> Path:
        """The page; drawn again where it is missing."""
        from regraft.recipes.reports import draw

        page = self.path / "report.html"
        return page if page.is_file() else draw(self.path)


def fit(
    *data: PathLike,
    budget: str | float | None = None,
    runs: PathLike = "runs",
    fresh: bool = False,
    listener: Listener | None = None,
    **options: Any,
) -> Run:
    """Transfer to the samples in `data` (folders); options are the fields of `regraft.recipes.fit.options.FitConfig`.

    budget: seconds, or "90s", "5m", "1h"; names may be written as "probe,finetune". Raises UsageError and DataError
    with a sentence that says what to do.
    """
    config = FitConfig.checked(roots=data, budget_s=budget, **options)
    return Run(run_fit(config, runs=Path(runs), fresh=fresh, listener=listener))


def adapt(
    source: PathLike | Sequence[PathLike],
    target: PathLike,
    *,
    budget: str | float | None = None,
    runs: PathLike = "runs",
    fresh: bool = False,
    listener: Listener | None = None,
    **options: Any,
) -> Run:
    """Carry the labels of `source` to the unlabelled `target`; options are the fields of
    `regraft.recipes.adapt.options.AdaptConfig`.

    Several folders as source are a domain each, with classes matched by name.

    `run.data.kept` says whether the adapted model or source-only was kept, `run.data.why` the reason. Raises UsageError
    and DataError with a sentence that says what to do.
    """
    from regraft.recipes.adapt.job import run_adapt
    from regraft.recipes.adapt.options import AdaptConfig

    sources = [source] if isinstance(source, str | os.PathLike) else source
    config = AdaptConfig.checked(source=tuple(sources), target=(target,), budget_s=budget, **options)
    return Run(run_adapt(config, runs=Path(runs), fresh=fresh, listener=listener))


def generalise(
    *domains: PathLike,
    runs: PathLike = "runs",
    fresh: bool = False,
    listener: Listener | None = None,
    **options: Any,
) -> Run:
    """Learn from two or more labelled `domains` (folders) for one that none of them is; options are the fields
    of `regraft.recipes.generalise.options.GeneraliseConfig`.

    `run.data.held_out` has the figures with each domain left out, `run.data.erm_gain` what the choice between methods
    gains over plain training. Raises UsageError and DataError with a sentence that says what to do.
    """
    from regraft.recipes.generalise.job import run_generalise
    from regraft.recipes.generalise.options import GeneraliseConfig

    config = GeneraliseConfig.checked(roots=domains, **options)
    return Run(run_generalise(config, runs=Path(runs), fresh=fresh, listener=listener))


def load(run: PathLike | Run, *, device: str = "auto") -> Predictor:
    """The model of a run, `runs/LAST`, or an artifact folder, ready to predict."""
    return Predictor.load(Path(os.fspath(run)), device=device)
