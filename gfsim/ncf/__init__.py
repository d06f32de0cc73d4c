"""Neural correlation functions, their flow phi and their KKT points (theory.md, sections 2 and 4)."""
