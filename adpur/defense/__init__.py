"""A purified classifier, and how an attacker differentiates it."""
