"""Gradient flow dw/dt = -grad L(w): clocks, integrators, events and the recorded trajectory."""
