"""What is said of an archive, one file a format. ``document`` is the manifest.json that everything else comes from."""
