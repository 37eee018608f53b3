"""What users test their workflows with: a server in memory, a clock that jumps over waits, a crash at every commit."""
