"""``--engine ray``: the work is spread over a Ray cluster. Only here Ray is imported."""
