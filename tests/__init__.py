"""The tests, and the scripted origin and media makers they stand on."""
