"""Which candidate an adaptation keeps: validators rank them without a target label, then the alarm may overrule.

Nothing here is given an oracle. `Choice`, for classes `Decision`, holds all that the report says about the choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from regraft.adaptation.evidence.alarm import (
    Alarm,
    Reverse,
    Vote,
    agreement,
    agreement_vote,
    class_affinity,
    consensus,
    judge,
    vote,
)
from regraft.adaptation.evidence.distances import domain_distance
from regraft.adaptation.evidence.setting import Setting, family, look, peers
from regraft.adaptation.evidence.validators import choose, collapsed, reverse_accuracy, validators
from regraft.adaptation.training.answers import Adapted
from regraft.adaptation.training.bench import PROBE, SOURCE_ONLY, AdaptBench
from regraft.adaptation.training.partial import PRESENT
from regraft.core.errors import UsageError, unknown_name
from regraft.core.types import DomainView, Validator

#: The ensemble's own voice: how often a candidate answers as the other adapted ones do. Scores that a method maximises
#: itself (entropy, infomax) cannot be fooled by it alone.
AGREEMENT = "agreement"
#: What held-out source pictures say that were altered as the target's are; it decides alone where there are such.
SIMULATED = "simulated target"
#: Validators that choose unless told; source accuracy says nothing of the target, so it only has a column.
CHOOSING = ("infomax", "SND", "BNM", "DEV", "entropy", AGREEMENT)
#: Those of them that choose where the target has other classes: the rest ask for sure answers, and a model that is sure
#: of everything can call nothing unknown.
CHOOSING_OPEN = ("SND", "DEV", AGREEMENT)


@dataclass(kw_only=True)
class Choice:
    """The choice and its evidence. kept: "adapted" or "source_only"; name: of the candidate that is handed over."""

    name: str
    control: str
    best: str
    kept: str
    why: str
    scores: dict[str, dict[str, float]]
    ranks: dict[str, float]
    votes: dict[str, Vote]
    distance: dict[str, Any] = field(default_factory=dict)
    alarms: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    next_steps: str = ""
    plan: str = ""

    @property
    def helped(self) -> bool | None:
        """True where adaptation is kept; None where source-only is: that it would have hurt is not known."""
        return True if self.kept == "adapted" else None

    @property
    def reason(self) -> str:
        """What is kept, and why."""
        kept = "Source-only is kept" if self.kept == "source_only" else f"Adapted with {self.name}"
        return f"{kept}: {self.why}"

    def score(self, name: str) -> float | None:
        """The mean rank by the validators, 1 = best."""
        return self.ranks.get(name)

    @property
    def validators(self) -> list[dict[str, Any]]:
        """Who said what about the best-ranked candidate against source-only."""
        return [
            {
                "name": v,
                "adapted": found.adapted,
                "source_only": found.control,
                "share": found.share,
                "side": found.side,
            }
            for v, found in self.votes.items()
        ]

    @property
    def lines(self) -> list[str]:
        """For the screen."""
        return [f"Held against source-only: {self.best}.", f"Kept: {self.name}. {self.why}"]


@dataclass(kw_only=True)
class Decision(Choice):
    """The choice between models of classes, with what was assumed of the target's classes."""

    reverse: Reverse | None
    setting: Setting

    @property
    def temperature(self) -> float:
        """The kept candidate's: its logits are divided by it."""
        return self.setting.calibrations[self.name].temperature

    @property
    def threshold(self) -> float:
        """The confidence below which the kept candidate answers `unknown`; 0 where it never does."""
        return self.setting.thresholds.get(self.name, 0.0)


def decide(bench: AdaptBench, candidates: list[Adapted]) -> Decision:
    """Rank, compare the best with source-only, keep one. Raises UsageError for a validator that does not exist."""
    # Hundreds of small decompositions: two threads wait for each other longer than they work.
    with threadpool_limits(limits=1, user_api="blas"):
        return _decide(bench, candidates)


@dataclass(frozen=True)
class _Scored:
    """What the validators say of every candidate. tools: the validators but agreement, which `together` tells of."""

    setting: Setting
    tools: Mapping[str, Validator]
    views: Mapping[str, tuple[DomainView, DomainView]]
    answers: Mapping[str, np.ndarray]
    challengers: list[str]
    together: bool
    scores: dict[str, dict[str, float]]


def _score(bench: AdaptBench, candidates: list[Adapted]) -> _Scored:
    with_source, setting_name = bench.source is not None, bench.config.setting
    names = chosen_validators(bench.config.validators, with_source=with_source, setting=setting_name)
    tools = {name: validators.get(name)() for name in names if name != AGREEMENT}
    labels = None if bench.source is None else bench.source.labels[bench.source.held]
    setting = look(setting_name, candidates, labels)
    views = {c.name: setting.views(c) for c in candidates}
    scores = {c: {v: tool.score(*views[c]) for v, tool in tools.items()} for c in views}
    # A candidate that can be tried on a likeness of the target is judged by that: no other evidence is as near.
    failed = {c.name for c in candidates if c.simulated is not None and c.simulated.vote().side != "adapted"}
    challengers = [c for c in views if c not in {SOURCE_ONLY, PROBE} and (c not in failed or c == bench.config.keep)]
    answers = {c.name: setting.answers(c) for c in candidates}
    together = AGREEMENT in names and len(challengers) > 2
    if together:
        for c in views:
            scores[c][AGREEMENT] = agreement(answers[c], [answers[o] for o in _others(c, challengers)])
    return _Scored(setting, tools, views, answers, challengers, together, scores)


def _others(name: str, challengers: list[str]) -> list[str]:
    """The challengers of other families, one of each: variations of one method agree with each other for no reason."""
    found = {family(c): c for c in reversed(challengers)}
    return [c for base, c in found.items() if base != family(name)]


def ranked(bench: AdaptBench, candidates: list[Adapted]) -> list[str]:
    """The candidates' names, best mean rank by the validators first."""
    with threadpool_limits(limits=1, user_api="blas"):
        ranking = choose(_score(bench, candidates).scores)
    return sorted(ranking.mean_rank, key=lambda c: ranking.mean_rank[c])


def _decide(bench: AdaptBench, candidates: list[Adapted]) -> Decision:
    scored = _score(bench, candidates)
    setting, tools, views = scored.setting, scored.tools, scored.views
    answers, challengers, together = scored.answers, scored.challengers, scored.together
    scores = scored.scores
    control = SOURCE_ONLY if SOURCE_ONLY in views else PROBE
    ranking = choose(scores)
    by_name = {c.name: c for c in candidates}
    votes: dict[str, Vote] = {}
    reverse: Reverse | None = None
    keep = bench.config.keep if bench.config.keep in by_name else None
    if challengers:
        likely = next((c for c in challengers if by_name[c].simulated is not None), None)
        best = keep if keep in challengers else likely or min(challengers, key=lambda c: ranking.mean_rank[c])
        simulated = by_name[best].simulated
        votes = {v: vote(tool, views[best], views[control], seed=bench.config.seed) for v, tool in tools.items()}
        if together:
            others = [answers[o] for o in _others(best, challengers)]
            votes[AGREEMENT] = agreement_vote(answers[best], answers[control], others, seed=bench.config.seed)
        reverse = _reverse(bench, setting, by_name[best], by_name[control])
        found = judge(
            best,
            gap=_gap(bench, by_name[control]),
            affinity=_affinity(bench, setting, by_name.get("AdaBN", by_name[control])),
            # Of those that cannot reach the target while a likeness of it does, consensus is not to be had.
            together=_together(setting, candidates) if simulated is None else None,
            votes=votes if simulated is None else {SIMULATED: simulated.vote(seed=bench.config.seed)},
            reverse=reverse,
            collapsed=_collapsed(bench, setting, by_name[best], by_name[control]),
        )
        if simulated is not None:
            votes[SIMULATED] = simulated.vote(seed=bench.config.seed)
            if found.keep_adapted:
                found = replace(found, why=simulated.told(best))
    else:
        best, found = control, Alarm(False, "no method was tried.")
    name = best if found.keep_adapted else control
    why = found.why
    if keep is not None and keep != name:
        # Of a candidate the evidence is its own against source-only; another one might have been kept.
        told = f"would have kept {name}" if keep == control else "does not speak for it"
        why = f"asked for by --keep. The evidence alone {told}: {why}"
        name = keep
    return Decision(
        name=name,
        control=control,
        best=best,
        kept="source_only" if name == control else "adapted",
        why=why,
        scores=scores,
        ranks=dict(ranking.mean_rank),
        votes=votes,
        reverse=reverse,
        setting=setting,
        distance=_distances(bench, by_name[control], by_name[best]),
        alarms=found.alarms,
        notes=(*_notes(ranking.ignored), *_not_made(bench.config.keep, keep)),
        next_steps=next_steps(found, best),
        plan=_plan(bench, name),
    )


def chosen_validators(asked: tuple[str, ...], *, with_source: bool, setting: str = "closed") -> tuple[str, ...]:
    """The validators that choose; those that need a source are left out of `auto` where there is none."""
    auto = CHOOSING_OPEN if setting == "open" else CHOOSING
    names = tuple(dict.fromkeys(n for name in asked for n in (auto if name == "auto" else (name,))))
    for name in names:
        if name not in validators and name != AGREEMENT:
            raise unknown_name("validator", name, [*validators.names(), AGREEMENT, "auto"])
    if with_source:
        return names
    able = tuple(n for n in names if n == AGREEMENT or not validators.get(n).needs_source)
    if not able or (asked != ("auto",) and able != names):
        raise UsageError("Without source pictures only validators that look at the target alone can choose.")
    return able


def _gap(bench: AdaptBench, control: Adapted) -> float | None:
    if control.source_features is None:
        return None
    return float(
        domain_distance(control.source_features, control.target_features, seed=bench.config.seed)["a_distance"]
    )


def _affinity(bench: AdaptBench, setting: Setting, found: Adapted) -> float | None:
    """Under each domain's own statistics where there are such: plain features differ by more than their classes."""
    found, labels = setting.narrowed(found), setting.source_labels
    if labels is None or found.source_features is None:
        return None
    return class_affinity(found.source_features, labels, found.target_features, seed=bench.config.seed)


def _reverse(bench: AdaptBench, setting: Setting, best: Adapted, control: Adapted) -> Reverse | None:
    best, control, labels = setting.narrowed(best), setting.narrowed(control), setting.source_labels
    if labels is None or best.source_features is None or control.source_features is None:
        return None
    if len(np.unique(labels)) < 2:  # with partial, where the target seems to hold one class: nothing to be told apart
        return None
    assert best.source_logits is not None
    chance = float(np.bincount(labels).max() / len(labels))
    own = float((best.source_logits.argmax(1) == labels).mean())
    found = [
        reverse_accuracy(*c.reversed(), c.source_features, labels, seed=bench.config.seed)
        for c in (best, control)
        if c.source_features is not None
    ]
    return Reverse(found[0], found[1], own, chance, len(labels))


def _collapsed(bench: AdaptBench, setting: Setting, best: Adapted, control: Adapted) -> tuple[str, ...]:
    """Classes that collapse in the adapted model and not in source-only, by the shares that are expected.

    These are the source's, unless the candidate estimates the target's itself, or classes may be missing (partial).
    """
    prior = np.full(len(bench.classes), 1 / len(bench.classes))
    if best.prior is not None:
        prior = best.prior
    elif setting.target_weights is not None:
        prior = np.where(setting.target_weights >= PRESENT, setting.target_weights, 0.0)
    elif bench.source is not None:
        prior = np.bincount(bench.source.labels, minlength=len(bench.classes)) / len(bench.source.labels)
    after = set(collapsed(setting.narrowed(best).target_logits, prior))
    before = set(collapsed(setting.narrowed(control).target_logits, prior))
    return tuple(bench.classes[int(i)] for i in sorted(after - before))


def _together(setting: Setting, candidates: list[Adapted]) -> float | None:
    """The consensus on the target over that on the held-out source: a hard task has less of it on both."""
    found = peers(candidates)
    target = consensus([setting.answers(c) for c in found])
    source = consensus([c.source_logits.argmax(1) for c in found if c.source_logits is not None])
    return target if target is None or not source or source <= 0 else target / source


def _distances(bench: AdaptBench, control: Adapted, best: Adapted) -> dict[str, Any]:
    if bench.source is None or control.source_features is None or best.source_features is None:
        return {}
    labels = bench.source.labels[bench.source.held]
    return {
        stage: domain_distance(
            features, c.target_features, labels=labels, pseudo_labels=c.target_logits.argmax(1),
            seed=bench.config.seed,
        )
        for stage, c, features in (
            ("before", control, control.source_features), ("after", best, best.source_features)
        )
    }  # fmt: skip


def _notes(ignored: Mapping[str, str]) -> tuple[str, ...]:
    if not ignored:
        return ()
    return ("Not counted in the ranks: " + "; ".join(f"{name} ({why})" for name, why in ignored.items()) + ".",)


def _not_made(asked: str | None, there: str | None) -> tuple[str, ...]:
    if asked is None or there is not None:
        return ()
    return (f"--keep {asked}: there is no such candidate in this run, so the evidence chose.",)


def next_steps(found: Alarm, best: str, *, numbers: bool = False) -> str:
    """What to do after the choice. numbers: of a regression, which has no classes and trains no whole network."""
    if found.keep_adapted:
        more = "" if numbers else "; --tune network trains the whole network"
        return (
            f"{best} is kept on label-free evidence. Label 50 to 100 target pictures, give them by --oracle, and the "
            f"report shows what was really gained{more}."
        )
    if found.alarms:
        same = "the same number means the same there" if numbers else "the target has the source's classes at all"
        return (
            f"Look whether {same}. If so, label a few dozen target pictures and use `regraft fit` on both domains "
            "together: a few labels beat every unlabelled method here."
        )
    return (
        "Source-only is as good as anything that could be shown without target labels. A stronger backbone usually "
        "helps more than another method; --oracle with 50 labelled target pictures would settle it."
    )


def _plan(bench: AdaptBench, name: str) -> str:
    if name not in bench.plans:
        return f"{name}\nno parameter of the backbone is trained; the head is solved on the source's features\n"
    return f"{name}\n{bench.plans[name]}\n"
