"""The figures of the papers, one module a figure, and the framework that runs them.

Layers: :mod:`paper_repro.claims` (what is claimed, and whether it holds) and
:mod:`paper_repro.figure` (what a figure module takes and returns) are all that a figure module needs;
:mod:`paper_repro.registry` lists the figures in order; :mod:`paper_repro.runner` runs them and writes
files; :mod:`paper_repro.report` renders tables; :mod:`paper_repro.gallery` compares two folders of figures.
:mod:`paper_repro.origin` holds what the figures that start near the origin have in common.

The contract of a figure module
-------------------------------
A figure module is listed in :data:`paper_repro.registry.FIGURES` by name, with the title and the paper's
figure it stands for.  It defines one function,

    def run(ctx: Context) -> Outcome

1. ``ctx.full`` asks for the paper's own sizes; without it the figure takes the quick form.  ``ctx.seed``
   and ``ctx.rng("purpose")`` are its only sources of randomness: a stream's numbers depend on the seed,
   the figure and the purpose alone, never on what else was drawn.
2. ``ctx.data("two_layer_square")`` loads the shipped arrays; ``ctx.data_folder`` is the user's own folder of data
   sets, if they gave one.  A figure reads no other file, except of installed packages, and writes none.
3. ``ctx.note("delta = 1e-3")`` says on the progress line what is being done.  It raises
   ``KeyboardInterrupt`` when the user has asked to stop, even if a solver swallowed that request, so
   call it between the parts of anything long.
4. It returns an :class:`~paper_repro.figure.Outcome`: a matplotlib ``Figure`` (made with
   ``ctx.subplots(...)`` or ``ctx.figure(...)``, which take the project's style and leave pyplot's global
   state alone), the claims, ``numbers`` (a dict of everything that the picture and the claims are made
   of), a ``caption``, and the ``convention`` of its clock, ``"sum"`` or ``"mean"`` over samples (``""``
   where no training loss is involved); perhaps an ``animation``, the bytes that
   :func:`paper_repro.figure.gif` returns.
5. Every claim is a :class:`~paper_repro.claims.Claim` made by ``at_most``, ``at_least``, ``close``,
   ``equal`` or ``between``.  Whether it holds is computed there from its numbers; there is no way to state
   it.  ``of=`` names the entries of ``numbers`` (dotted paths) from which the measured value follows, so
   that other code can recompute it from the JSON file alone; the runner refuses a claim whose entries
   are missing.  A list as measured value must satisfy the rule entry by entry.
6. matplotlib, torch and scikit-learn are imported inside functions: listing the figures imports nothing.
7. Nothing else may enter: a figure is not run again while its sources, seed, form, data and the versions of the
   numerical packages are what they were (:mod:`paper_repro.inputs`).
8. An exception in ``run`` loses that figure only; its traceback goes to ``NAME.error.txt``.

    from paper_repro.claims import Claim, THEOREM
    from paper_repro.figure import Context, Outcome

    def run(ctx: Context) -> Outcome:
        error = ...
        fig, axes = ctx.subplots(1, 2, size=(9, 4))
        ...
        return Outcome(
            figure=fig,
            claims=[Claim.at_most("flow against the closed form", error.max(), 1e-6, of="error", source=THEOREM)],
            numbers={"delta": deltas, "error": error},
            caption="Contours of the loss and ...",
            convention="sum",
        )

A claim that does not hold is written over its figure in red.

The runner writes ``NAME.png``, ``NAME.svg``, ``NAME.gif`` if there is an animation, and, last, ``NAME.json``:
``{"name", "title", "source", "caption", "files", "full", "seed", "inputs", "convention", "claims": [{"name",
"expected", "measured", "holds", "relation", "bound", "source", "of"}], "numbers", "versions", "seconds"}``.
"""
