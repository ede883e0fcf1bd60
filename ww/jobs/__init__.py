"""Python functions on the cluster, as a program uses them."""
