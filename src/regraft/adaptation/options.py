"""What an adaptation tries where nobody asks for particular methods, and which methods correct a solved head."""

from __future__ import annotations

#: What `--method auto` tries, cheap to costly; the trained ones as far as the budget reaches.
AUTO = ("standardise", "CORAL", "AdaBN", "MCC", "SHOT", "CDAN+E", "DAN", "acquisition")
#: What is for a target with classes that the source lacks alone, and `auto` there. MCC and SHOT make every answer for
#: the target sure, those for unknown pictures too: then confidence no longer tells them.
OPEN_ALONE = "OSBP"
AUTO_OPEN = ("standardise", "CORAL", "AdaBN", OPEN_ALONE, "CDAN+E", "DAN")
#: The methods that correct a solved head for other class shares; for cached features alone.
PRIORS = ("BBSE", "EM-prior")
