"""What a fit says of its pictures before it begins: what the audit found, and what the network will not see."""

from __future__ import annotations

from collections.abc import Sequence

from regraft.core.listener import Listener
from regraft.data.facts import Facts
from regraft.images.backbones.base import ImageBackbone
from regraft.recipes.fit.pictures import Prepared
from regraft.tasks.kind import Kind

#: A crop that leaves as much of the short side is not worth a word.
NEARLY_ALL = 0.95


def tell_audit(prepared: Prepared, kind: Kind, listener: Listener) -> None:
    """How many pictures there are, and what of the audit and the split is more than information."""
    report = prepared.audit
    if prepared.source.labelling is not None and prepared.source.labelling.assumed:
        listener.say(prepared.source.labelling.assumed)
    listener.say(
        f"{report.n_usable} of {report.n_files} pictures {kind.described(prepared.labels)} are usable "
        f"(looked at in {report.seconds:.1f} s)."
    )
    for finding in report.findings:
        if finding.severity != "info":
            listener.say(f"  {finding.severity}: {finding.sentence}")
    for note in prepared.splits.notes:
        listener.say(f"  {note}")


def unseen_edges(facts: Sequence[Facts], backbone: ImageBackbone) -> str | None:
    """A sentence where pictures of one size, as one device takes them, lose their edges to the weights' own crop."""
    seen = float(backbone.input_spec.options["crop_pct"])
    sizes = {(fact.width, fact.height) for fact in facts}
    if seen >= NEARLY_ALL or "crop_pct" in backbone.recipe.get("options", {}) or len(sizes) != 1:
        return None
    ((width, height),) = sizes
    name = str(backbone.recipe["name"])
    return (
        f"All pictures are {width} × {height} px, as one device takes them, and the preprocessing of these weights "
        f"cuts {(1 - seen) / 2:.0%} of the short side off each edge. Where the edge may matter: "
        f"--backbone {name}{',' if ':' in name else ':'}crop_pct=1.0 shows all of it."
    )
