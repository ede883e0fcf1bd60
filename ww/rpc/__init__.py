"""Capabilities over authenticated streams. Start with vat.py."""
