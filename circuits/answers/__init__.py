"""Nodes and the answers that they tell apart: what each writes for every label, alone and through the others.

The one idea: for a question with several labels, one of them right, what a node writes onto the labels' logits splits
into a part that is there whichever is right (a bias) and a part that knows; and what it writes itself (direct effect)
into all that hangs on it (total effect).
Source: Lieberum et al. 2023 (arXiv 2307.09458), on a model that nobody else has; docs/analyses/answers.md says what
is our own definition.
"""
