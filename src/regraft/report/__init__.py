"""Floor 2: a run directory becomes `report.json` (schema) and one self-contained HTML page.

What a job or a kind of labels adds is a `Section` that its owner registers; `regraft.recipes.reports` reads and draws
with all of them.
"""
