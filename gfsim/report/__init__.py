"""One HTML page from a folder that gfsim's commands wrote (docs/report.md).

    collect.py      a folder -> the files in it that a command wrote -> sections
    readers/        one module a kind of output: what it says, as a section
    sections.py     what a section is made of: claims, pictures, tables, texts, a trajectory
    trajectory.py   a flow, thinned to what the interactive view shows
    page.py         sections -> HTML; page.css is its style, script/ the parts of its one script

Nothing is computed here but what a reader can check from the files: whether a claim holds is computed again
from its numbers, and a certificate is verified again.
"""
