"""Failed calls: a command runs with one of its file-system calls made to fail, and what it leaves is looked at."""
