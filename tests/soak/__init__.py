"""What takes too long for every change: long runs, many clients, hard attacks. ``scripts/soak`` runs it."""
