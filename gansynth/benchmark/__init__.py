"""Arms x draws x seeds on the user's own cases, paired statistics, and a report that says it."""
