"""The statements of the theory, one module each, checked by symbols, by numbers and by a broken hypothesis.

``gfsim check`` runs them; docs/checks.md says how to read the table.
"""
