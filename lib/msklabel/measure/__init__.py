"""From masks to the papers' numbers: overlap, quantities, agreement, associations, relaxometry, reports."""
