"""How fast it is, beside others who do the same. ``scripts/bench`` runs it."""
