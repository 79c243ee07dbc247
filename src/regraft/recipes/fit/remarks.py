"""What a fit says of its samples before it begins: what the audit found."""

from __future__ import annotations

from regraft.core.listener import Listener
from regraft.recipes.fit.prepared import Prepared
from regraft.tasks.kind import Kind


def tell_audit(prepared: Prepared, kind: Kind, listener: Listener) -> None:
    """How many samples there are, and what of the audit and the split is more than information."""
    report = prepared.audit
    if prepared.source.labelling is not None and prepared.source.labelling.assumed:
        listener.say(prepared.source.labelling.assumed)
    listener.say(
        f"{report.n_usable} of {report.n_files} {prepared.source.many} {kind.described(prepared.labels)} are usable "
        f"(looked at in {report.seconds:.1f} s)."
    )
    for finding in report.findings:
        if finding.severity != "info":
            listener.say(f"  {finding.severity}: {finding.sentence}")
    for note in prepared.splits.notes:
        listener.say(f"  {note}")
