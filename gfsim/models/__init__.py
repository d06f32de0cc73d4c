"""Models H(x; w): feed-forward networks, linear families and user functions (theory.md, section 1)."""
