"""`regraft style translate`: two folders of pictures without pairs → a model that turns one kind into the other.

Order: audit, a part held out, how many steps fit into the time, training with figures in between, figures of all
held-out pictures, artifact, report.
"""

from __future__ import annotations

from pathlib import Path

from regraft.core.environment import command_line
from regraft.core.listener import Listener
from regraft.engine import Machine
from regraft.recipes.frame.budget import told_time
from regraft.recipes.frame.job import Brief, Frame, Job, look_with, run_job
from regraft.recipes.translate.options import DEFAULT_BUDGET_S, TranslateConfig
from regraft.recipes.translate.outcome import conclude_translation
from regraft.recipes.translate.pictures import PictureSet, read_sets, split_record
from regraft.recipes.translate.training import Training

Sets = tuple[PictureSet, PictureSet]


class Translate(Job[TranslateConfig, Sets]):
    """`regraft style translate`."""

    recipe = "translate"

    def prepare(self, options: TranslateConfig, machine: Machine, listener: Listener) -> Brief[Sets]:
        a, b = read_sets(options, look_with(listener))
        return Brief((a, b), f"{a.name}_and_{b.name}", "cyclegan", split_record(a, b))

    def foresee(self, options: TranslateConfig, material: Sets, machine: Machine) -> list[str]:
        sets = [f"{one.name}: {len(one.train)} to learn from, {len(one.held)} held out." for one in material]
        return [*sets, f"CycleGAN at {options.size} px.", f"Time: {told_time(options, DEFAULT_BUDGET_S)}."]

    def work(self, options: TranslateConfig, material: Sets, frame: Frame) -> None:
        for one in material:
            frame.listener.say(
                f"{one.name}: {len(one.train)} pictures to learn from, {len(one.held)} held out for figures."
            )
            for finding in one.audit.findings:
                if finding.severity != "info":
                    frame.listener.say(
                        f"  {finding.severity}: {finding.sentence} {', '.join(finding.examples[:3])}"
                    )  # fmt: skip
        training = Training(options, *material, frame)
        training.train(frame.clock)
        conclude_translation(training, frame.clock.spent, command_line())


def run_translate(
    config: TranslateConfig,
    *,
    runs: Path = Path("runs"),
    folder: Path | None = None,
    fresh: bool = False,
    listener: Listener | None = None,
) -> Path:
    """Train both translations; returns the run directory, `folder` where it is given. An unfinished run is resumed.

    Raises DataError for sets that cannot be used, UsageError for a folder that holds something else.
    """
    return run_job(Translate(), config, runs=runs, fresh=fresh, listener=listener, folder=folder)
