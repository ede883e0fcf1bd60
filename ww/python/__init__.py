"""Python functions as guests: what travels, in which form, and the component that they run in."""
