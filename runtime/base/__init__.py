"""What every other floor stands on: errors, durations, clock, ids, values, configuration, the public records."""
