"""Who is a member of the cluster, and how everybody comes to know. Start with membership.py."""
