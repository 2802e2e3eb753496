"""How a number is made: judge, trials, outcomes, statistics, records."""
