"""What a gateway is: HTTP in, runs out, nothing accepted is lost. Start with http.py, then scheduler.py."""
