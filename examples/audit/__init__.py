"""The parts of the code audit that have nothing to do with workflows, and its demonstration."""
