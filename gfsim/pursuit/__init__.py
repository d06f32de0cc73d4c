"""Neuron Pursuit: networks grown neuron by neuron along the maxima of their NCFs (docs/theory.md, section 6)."""
