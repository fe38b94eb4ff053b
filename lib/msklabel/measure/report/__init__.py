"""One self-contained page for an evaluation or a cohort: tables, figures, where everything came from."""
