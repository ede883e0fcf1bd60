"""What runs inside the sandbox: the code that loads and calls a user's functions, built into the component."""
