"""How long a run may take, and how that time is shared out.

The probe comes first and costs what it costs. What is left goes to fine-tuning, to the control and, where there is
enough, to training the chosen one and the control again on training and validation pictures together.
"""

from __future__ import annotations

from dataclasses import dataclass

from regraft.core.option_groups import TimeOptions

#: Without --budget: the time for the usual number of epochs, between these bounds.
DEFAULT_LIMITS_S = (60.0, 1200.0)
#: What scoring, figures and the artifact take, beside a share of the whole.
RESERVE_S = 8.0
#: Of a budget this share is planned with; the rest is for what was estimated too low.
IN_TRAINING = 0.96
#: An epoch on the refit's larger set and its start-up cost this much more.
REFIT_COST = 1.35


@dataclass(frozen=True)
class Schedule:
    """epochs for each trained candidate; limit_s, a hard limit per candidate; refit, whether there is room for it.

    usual: the epochs that so many pictures usually profit from; needed_s: the budget that gives them on this machine,
    None where the epochs were asked for.
    """

    epochs: float
    limit_s: float | None
    budget_s: float
    epoch_s: float
    refit: bool
    usual: float = 0.0
    needed_s: float | None = None

    @property
    def short(self) -> bool:
        """Less than half of the usual epochs."""
        return self.epochs < self.usual / 2


def usual_epochs(n_train: int) -> float:
    """Epochs that fine-tuning a set of that size usually profits from: about 5,000 pictures in all, 8 to 40 epochs."""
    return float(min(40, max(8, round(5000 / max(1, n_train)))))


def schedule(
    *,
    n_train: int,
    epoch_s: float,
    spent_s: float,
    budget_s: float | None,
    epochs: float | None,
    trained: int,
    refit: bool,
) -> Schedule:
    """Share the time.

    epoch_s: seconds of one epoch with its evaluation. trained: how many trainings precede the refit. Where `epochs` is
    given it is kept and nothing is cut off. Too little time for one epoch gives 0 epochs.
    """
    usual = usual_epochs(n_train)
    whole = trained + (2 * REFIT_COST if refit else 0)
    if epochs is not None:
        budget_s = budget_s or spent_s + epochs * epoch_s * whole + RESERVE_S
        return Schedule(epochs, None, budget_s, epoch_s, refit, usual)
    needed = spent_s + RESERVE_S + usual * epoch_s * whole * 1.1
    ample = needed / IN_TRAINING
    if budget_s is None:
        budget_s = float(min(max(needed, DEFAULT_LIMITS_S[0]), DEFAULT_LIMITS_S[1]))
    left = max(0.0, budget_s * IN_TRAINING - spent_s - RESERVE_S)
    if refit and left / (whole * epoch_s) < 3:  # a refit that halves a short training costs more than it gives
        refit, whole = False, trained
    share = left / max(whole, 1e-9)
    possible = share / max(epoch_s * 1.1, 1e-9)
    if possible < 0.5:
        return Schedule(0.0, None, budget_s, epoch_s, False, usual, ample)
    return Schedule(round(min(usual, possible), 2), share * 1.15, budget_s, epoch_s, refit, usual, ample)


def told_time(options: TimeOptions, usual_s: float | None = None) -> str:
    """How long these options let a job take, for people. usual_s: the budget where none is given."""
    if options.epochs is not None:
        return f"{options.epochs:g} epochs of each training"
    budget_s = options.budget_s or usual_s
    return "as the usual number of epochs takes" if budget_s is None else f"about {budget_s:.0f} s for everything"
