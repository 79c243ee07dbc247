"""Which methods an adaptation of classes tries, and what is refused before anything is read."""

from __future__ import annotations

from regraft.adaptation.altered.streams import ACQUISITION, BIGAUG, RESTYLE
from regraft.adaptation.base import losses
from regraft.adaptation.maps.shallow import shallow
from regraft.adaptation.options import AUTO, AUTO_OPEN, OPEN_ALONE, PRIORS
from regraft.adaptation.training.cached import ADABN
from regraft.adaptation.training.method import is_method, parse_method
from regraft.adaptation.training.sources import FOR_SEVERAL, WEIGHTING
from regraft.core.errors import UsageError, unknown_name
from regraft.core.option_groups import AdaptationOptions


def method_names(config: AdaptationOptions) -> tuple[str, ...]:
    """The methods to try, `auto` spelled out; UsageError for an unknown one or one that needs what is not there."""
    several = config.table is None and len(config.source) > 1
    known = {*losses.names(), *shallow.names(), *PRIORS, ADABN, WEIGHTING, RESTYLE, BIGAUG, ACQUISITION}
    auto = (*(AUTO_OPEN if config.setting == "open" else AUTO), *(FOR_SEVERAL if several else ()))
    names = tuple(dict.fromkeys(n for name in config.methods for n in (auto if name == "auto" else (name,))))
    for name in names:
        if is_method(name):
            parse_method(name).build(4, 4)  # an option that a loss refuses is told before anything else is done
        elif name not in known:
            raise unknown_name("adaptation method", name, {*known, "auto"})
    if any(name.partition(":")[0] == OPEN_ALONE for name in names) and config.setting != "open":
        raise UsageError(f"{OPEN_ALONE} is for a target with classes that the source lacks: it takes --setting open.")
    if WEIGHTING in names and not several:
        raise UsageError(
            f"{WEIGHTING} compares sources: name two or more folders before the target, or leave it out of --method."
        )
    if WEIGHTING in config.methods and config.tune == "network":
        raise UsageError(f"{WEIGHTING} works on cached features: leave --tune network out, or the method.")
    if config.source_free is None:
        return names
    alone = [n for n in names if n == ADABN or (is_method(n) and not parse_method(n).kind.needs_source)]
    if not alone or (config.methods != ("auto",) and len(alone) < len(names)):
        able = sorted({ADABN, *(n for n in losses if not losses.get(n).needs_source)})
        raise UsageError(f"Without source pictures only {', '.join(able)} can work; {', '.join(names)} came.")
    return tuple(alone)


def check_priors(config: AdaptationOptions, *, pretrained: bool) -> None:
    """UsageError where a method that corrects a head on cached features would have none."""
    asked = [n for n in config.methods if n in (*PRIORS, RESTYLE, BIGAUG, ACQUISITION)]
    if asked and (config.tune == "network" or not pretrained):
        why = "--tune network" if config.tune == "network" else f"{config.backbone}, which has no pretrained weights"
        raise UsageError(
            f"{' and '.join(asked)} works on cached features and cannot be used with {why}: take a pretrained backbone "
            "without --tune network, or leave it out."
        )
