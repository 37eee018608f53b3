"""The front ends: what users write workflows in. Each compiles to `engine.definition.Definition`."""
