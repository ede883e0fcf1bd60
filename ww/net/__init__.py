"""Authenticated byte streams between nodes. Knows nothing of Cap'n Proto. Start with transport.py."""
