"""The whole job against an embedded origin: the documented API with real media, no account and no network."""
