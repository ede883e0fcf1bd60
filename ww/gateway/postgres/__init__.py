"""The same store on PostgreSQL: address.py (where), session.py (how), writer.py (commits), store.py (what)."""
