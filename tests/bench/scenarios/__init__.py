"""A scenario a file: `run(options)` measures and gives its sections."""
