"""A run that is spread out. A shard is a batch of prompts; a worker runs the real pipeline on it and hands back what
became of them; the driver alone writes the catalog and tells the world.
"""
