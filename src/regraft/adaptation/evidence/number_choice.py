"""Which candidate an adaptation of numbers keeps: validators rank them, and everything has to speak for the best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regraft.adaptation.evidence.alarm import Alarm, Vote, vote
from regraft.adaptation.evidence.choice import Choice, next_steps
from regraft.adaptation.evidence.distances import domain_distance
from regraft.adaptation.evidence.number_evidence import judge_numbers, number_validators, own_r2, reverse_r2
from regraft.adaptation.evidence.validators import choose
from regraft.adaptation.training.answers import Adapted
from regraft.adaptation.training.bench import PROBE, SOURCE_ONLY, AdaptBench


def numbers_of(bench: AdaptBench) -> np.ndarray:
    """The numbers (N,) of all source pictures."""
    assert bench.source is not None
    return bench.source.labels


def held_numbers(bench: AdaptBench) -> np.ndarray:
    """The numbers of held-out source pictures."""
    assert bench.source is not None
    return np.asarray(bench.source.labels[bench.source.held])


@dataclass(frozen=True)
class _Compared:
    """The best-ranked challenger against the better of the two source-only models."""

    best: Adapted
    control: Adapted
    votes: dict[str, Vote]
    found: Alarm


def decide_numbers(bench: AdaptBench, candidates: list[Adapted], names: tuple[str, ...]) -> Choice:
    """Rank by the validators, compare the best with source-only, keep one.

    Source-only is the one of the two, probe or adapter, that errs less on the held-out source.
    """
    tools = {name: number_validators.get(name)() for name in names}
    views = {c.name: c.views(held_numbers(bench)) for c in candidates}
    scores = {c: {v: tool.score(*views[c]) for v, tool in tools.items()} for c in views}
    ranking = choose(scores)
    by_name = {c.name: c for c in candidates}
    control = min((by_name[n] for n in (PROBE, SOURCE_ONLY)), key=lambda c: mean_error(bench, c))
    challengers = [c for c in candidates if c.name not in (PROBE, SOURCE_ONLY)]
    assert control.source_features is not None
    distances = {"before": domain_distance(control.source_features, control.target_features, seed=bench.config.seed)}
    if not challengers:
        compared = _Compared(control, control, {}, Alarm(False, "no method was tried."))
    else:
        best = min(challengers, key=lambda c: ranking.mean_rank[c.name])
        votes = {v: vote(t, views[best.name], views[control.name], seed=bench.config.seed) for v, t in tools.items()}
        found = judge_numbers(
            best.name,
            gap=distances["before"]["a_distance"],
            votes=votes,
            source_error=(mean_error(bench, best), mean_error(bench, control)),
            reverse=(reverse_r2(*views[best.name], seed=bench.config.seed), own_r2(views[best.name][0])),
            spread=(float(best.target_logits.std()), float(numbers_of(bench).std())),
        )
        compared = _Compared(best, control, votes, found)
        assert best.source_features is not None
        distances["after"] = domain_distance(best.source_features, best.target_features, seed=bench.config.seed)
    kept = compared.best if compared.found.keep_adapted else control
    ignored = "; ".join(f"{name} ({why})" for name, why in ranking.ignored.items())
    return Choice(
        name=kept.name,
        control=control.name,
        best=compared.best.name,
        kept="adapted" if compared.found.keep_adapted else "source_only",
        why=compared.found.why,
        scores=scores,
        ranks=dict(ranking.mean_rank),
        votes=compared.votes,
        distance=distances,
        alarms=compared.found.alarms,
        notes=(f"Not counted in the ranks: {ignored}.",) if ignored else (),
        next_steps=next_steps(compared.found, compared.best.name, numbers=True),
        plan=f"{kept.name}\nno parameter of the backbone is trained; the head is solved on the source's features\n",
    )


def mean_error(bench: AdaptBench, found: Adapted) -> float:
    """A candidate's mean absolute error on held-out source pictures."""
    assert found.source_logits is not None
    return float(np.abs(found.source_logits[:, 0] - held_numbers(bench)).mean())
