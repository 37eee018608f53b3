"""What `paddock doctor` looks at: the machine, a database, a run directory. It changes nothing."""
