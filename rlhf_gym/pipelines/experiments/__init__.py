"""Experiments: schemes x seeds, run until all are done, judged alike, compared.

`compare` runs, `report` tells; between them lies nothing but a folder of small files.
"""
