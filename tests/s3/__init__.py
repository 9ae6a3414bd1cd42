"""Real S3 servers on loopback, and the tools to drive, break and read them back."""
