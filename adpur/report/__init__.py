"""Tables and pages of finished runs, from their records alone."""
