"""Capabilities that any node may hand out. Siblings: none imports another."""
