"""The page on which people label: `rlhf-gym label --store feedback.db`.

A server of a few routes (`app`) between a feedback store and a page of plain HTML, CSS and
JavaScript (`static`). docs/labelling.md says how it is used, and why it is built so.
"""
