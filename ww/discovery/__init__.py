"""Nodes that find each other: the survey, without and with its sockets. Start with survey.py."""
