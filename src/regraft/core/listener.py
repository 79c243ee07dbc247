"""How a recipe tells what it is doing. The command line shows it; the library default is silence."""

from __future__ import annotations

import logging

log = logging.getLogger("regraft")


class Listener:
    """Receives what happens. This one only logs; faces override what they show."""

    def say(self, text: str) -> None:
        """A finished fact, worth a line."""
        log.info("%s", text)

    def progress(
        self, what: str, done: float, total: float, *, rate: str = "", remaining_s: float | None = None
    ) -> None:
        """Where a long piece of work stands; called often."""
