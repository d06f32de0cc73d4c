"""Sparse saddles (wbar_n, 0): find, certify, start near them, meet them along a trajectory."""
