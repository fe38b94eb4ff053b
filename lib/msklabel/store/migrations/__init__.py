"""How a database of an older msklabel becomes one of today."""
